"""A trained pair matching run, read back by the config that lies beside it."""

import json
import os
import pathlib
from functools import partial
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from kprpe_jax.matching.two_image import OneImage, SameOrNot, TwoLinear
from kprpe_jax.tasks import pair_data, pair_matching
from kprpe_jax.tasks.recognition import SHARDING_RULES
from kprpe_jax.tasks.task import Task
from kprpe_jax.training import mesh as mesh_lib
from kprpe_jax.training.checkpoint import restore_for_eval
from kprpe_jax.training.state import abstract_state


class PairRun(NamedTuple):
    """What a run left.

    Attributes:
      config: of the run.
      model, variables: its transformer.
    """

    config: ConfigDict
    model: OneImage | SameOrNot | TwoLinear
    variables: dict[str, Any]


def read_pair_run(workdir: str | os.PathLike, *, which: int | str = "last") -> PairRun:
    """Read a run's transformer; its data sets are not needed.

    Args:
      workdir: folder of the run.
      which: a step, "last" or "best".
    Raises: ValueError: no run, or one of another task; no such checkpoint.
    """
    config = _read_config(pathlib.Path(workdir))
    mesh = mesh_lib.make_mesh(dict.fromkeys(mesh_lib.AXES, 1), jax.devices()[:1])
    model, cnn = pair_matching.make_model(config.model), None
    if config.data.input == "images" and not config.model.window_size:
        cnn = pair_data.open_cnn(config)
    init = partial(pair_matching.init, config, model, cnn)
    nothing = dict.fromkeys(("loss", "open_training", "check_batch"))
    task = Task(init, **nothing, evaluators={}, sharding_rules=SHARDING_RULES)
    state = restore_for_eval(
        workdir,
        which,
        abstract_state(task, mesh),
        metric=config.checkpoint.best_metric,
        mode=config.checkpoint.best_mode,
    )
    variables = pair_matching.transformer_variables(state.params, state.collections)
    return PairRun(config, model, variables)


def _read_config(workdir: pathlib.Path) -> ConfigDict:
    file = workdir / "config.json"
    try:
        config = ConfigDict(json.loads(file.read_text("utf-8")))
        task = config.task
    except (OSError, ValueError, TypeError, AttributeError) as e:
        raise ValueError(
            f"read_pair_run: {workdir} must be the folder of a run, with its "
            "config.json; got another; name the --workdir of train.py."
        ) from e
    if task != "pair_matching":
        raise ValueError(
            f"read_pair_run: {workdir} must be a run of the task pair_matching; got "
            f"one of {task!r}; give a run on pairs."
        )
    return config
