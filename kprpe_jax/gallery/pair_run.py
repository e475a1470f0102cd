"""A trained pair matching run, read back by the config that lies beside it."""

import json
import os
import pathlib
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from kprpe_jax.matching.two_image import OneImage, SameOrNot, TwoLinear
from kprpe_jax.tasks import pair_matching
from kprpe_jax.tasks.pair_data import BACKBONE
from kprpe_jax.training.checkpoint import restore_arrays


class PairRun(NamedTuple):
    """What a run left.

    Attributes:
      config: of the run.
      model, variables: its transformer.
    """

    config: ConfigDict
    model: OneImage | SameOrNot | TwoLinear
    variables: dict[str, Any]


def read_pair_run(
    workdir: str | os.PathLike, *, checkpoint: int | str = "last"
) -> PairRun:
    """Read a run's transformer; its data sets are not needed.

    Args:
      workdir: folder of the run.
      checkpoint: a step, "last" or "best".
    Raises: ValueError: no run, or one of another task; no such checkpoint.
    """
    config = _read_config(pathlib.Path(workdir))
    _, params, collections = restore_arrays(
        workdir,
        checkpoint,
        config,
        lambda path: (
            path.startswith(("params/transformer/", "collections/"))
            and not path.startswith(f"collections/{BACKBONE}/")
        ),
    )
    variables = pair_matching.transformer_variables(params, collections)
    return PairRun(config, pair_matching.make_model(config.model), variables)


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
