"""Run a config's evaluators on a checkpoint, on any mesh."""

import os
from collections.abc import Sequence

from ml_collections import ConfigDict

from kprpe_jax import tasks
from kprpe_jax.tasks.task import run_evaluators
from kprpe_jax.training import mesh as mesh_lib
from kprpe_jax.training.checkpoint import restore_for_eval
from kprpe_jax.training.loop import prepare_data
from kprpe_jax.training.state import abstract_state


def evaluate(
    config: ConfigDict,
    workdir: str | os.PathLike,
    *,
    which: int | str = "best",
    evaluators: Sequence[str] = (),
) -> dict[str, float]:
    """Restore a checkpoint and run evaluators.

    Args:
      config: of the run; `mesh` and `evals` may differ from training.
      workdir: the run's folder; nothing in it is changed.
      which: a step, "last", or "best" by the config's checkpoint.best_metric.
      evaluators: names; all of the task's by default.
    Returns: {"evaluator/metric": value}, and `step`, the checkpoint's.
    Raises: ValueError: unknown evaluator; no such checkpoint, or another model's.
    """
    prepare_data(config)
    mesh = mesh_lib.make_mesh(config.mesh)
    mesh_lib.check_batch_size(config.evals.batch_size, 1, mesh)
    task = tasks.build(config, mesh)
    for name in evaluators:
        if name not in task.evaluators:
            raise ValueError(
                f"evaluate: unknown evaluator {name!r}; use some of "
                f"{tuple(task.evaluators)}."
            )
    state = restore_for_eval(
        workdir,
        which,
        abstract_state(task, mesh),
        metric=config.checkpoint.best_metric,
        mode=config.checkpoint.best_mode,
    )
    results = run_evaluators(task, evaluators or task.evaluators, state, mesh)
    return {"step": int(state.step), **results}
