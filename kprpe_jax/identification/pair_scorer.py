"""A trained pair matching run as what compares candidates in the second stage."""

import os
from collections.abc import Callable
from functools import partial

import jax
from jax import Array
from ml_collections import ConfigDict

from kprpe_jax.tasks import pair_data, pair_matching
from kprpe_jax.tasks.recognition import SHARDING_RULES
from kprpe_jax.tasks.task import Task
from kprpe_jax.training import mesh as mesh_lib
from kprpe_jax.training.checkpoint import restore_for_eval
from kprpe_jax.training.state import abstract_state


def run_scorer(
    config: ConfigDict, workdir: str | os.PathLike, *, which: int | str = "best"
) -> Callable[[Array, Array], Array]:
    """Read a run's transformer; its data sets are not needed.

        score = run_scorer(config, "runs/h2l", which="last")
        compare = partial(two_image.second_stage, score=score)
        two_stage(queries, gallery, compare=compare)

    Args:
      config: of the run.
      workdir: its folder.
      which: a step, "last" or "best".
    Returns: compiled; patches, or with learned patches images in [-1, 1], of both sides
      [P, ...] -> float32 [P].
    Raises: ValueError: a run of another task or variant, no such checkpoint.
    """
    if config.task != "pair_matching":
        raise ValueError(
            f"run_scorer: config.task must be pair_matching; got {config.task!r}; give "
            "the config of a run on pairs."
        )
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
    return jax.jit(partial(pair_matching.score_sides, model, variables))
