"""Run a config's evaluators on a checkpoint, on any mesh."""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from kprpe_jax import tasks
from kprpe_jax.core import mesh as mesh_lib
from kprpe_jax.core.mesh import replicated
from kprpe_jax.tasks.task import Task, run_evaluators
from kprpe_jax.training.checkpoint import restore_for_eval
from kprpe_jax.training.loop import prepare_data
from kprpe_jax.training.state import abstract_state


def evaluate(
    config: ConfigDict,
    workdir: str | os.PathLike,
    *,
    checkpoint: int | str = "best",
    evaluators: Sequence[str] = (),
    weights: str | None = None,
) -> dict[str, float]:
    """Restore a checkpoint, or read published weights, and run evaluators.

    Args:
      config: of the run; what `config.NETWORK` does not name may differ from training.
      workdir: the run's folder; nothing in it is changed.
      checkpoint: a step, "last" or "best", as `restore_for_eval`.
      evaluators: names; all of the task's by default.
      weights: file of published weights (`Task.import_weights`) in place of a
        checkpoint.
    Returns: {"evaluator/metric": value}, and `step`, the checkpoint's.
    Raises: ValueError: unknown evaluator, or none at all; no such checkpoint, or
      another network's; weights of another network, or of a task that reads none.
    """
    prepare_data(config)
    mesh = mesh_lib.make_mesh(config.mesh)
    mesh_lib.check_batch_size(
        config.evals.batch_size, 1, mesh, field="evals.batch_size"
    )
    task = tasks.build(config, mesh)
    for name in evaluators:
        if name not in task.evaluators:
            raise ValueError(
                f"evaluate: unknown evaluator {name!r}; use some of "
                f"{tuple(task.evaluators)}."
            )
    if not task.evaluators:
        raise ValueError(
            "evaluate: the config must name something to evaluate in its section "
            "evals; got nothing."
        )
    if weights is not None:
        return run_evaluators(
            task, evaluators or task.evaluators, _published(task, weights, mesh), mesh
        )
    state = restore_for_eval(workdir, checkpoint, abstract_state(task, mesh), config)
    results = run_evaluators(task, evaluators or task.evaluators, state, mesh)
    return {"step": int(state.step), **results}


class PublishedState(NamedTuple):
    """What evaluators read of a state."""

    params: Any
    collections: dict[str, Any]


def _published(task: Task, weights: str, mesh: Mesh) -> PublishedState:
    if task.import_weights is None:
        raise ValueError("evaluate: this task reads no published weights; name a run")
    variables = jax.device_put(dict(task.import_weights(weights)), replicated(mesh))
    return PublishedState(variables.pop("params"), variables)
