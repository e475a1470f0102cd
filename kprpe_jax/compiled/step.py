"""The training step and the evaluation of a config, traced for any devices."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from kprpe_jax import tasks
from kprpe_jax.core import mesh as mesh_lib
from kprpe_jax.evaluation.embedding import trace_embedding
from kprpe_jax.evaluation.evaluators import entries
from kprpe_jax.tasks.task import Task
from kprpe_jax.training.by_path import freeze_loss
from kprpe_jax.training.optimizer import make_optimizer
from kprpe_jax.training.state import abstract_state
from kprpe_jax.training.step import CompiledStep, make_train_step


class Step(NamedTuple):
    """A step and shapes of what it takes.

    Attributes:
      traced: the step.
      state: of shapes with their shardings.
      task: what is trained.
    """

    traced: jax.stages.Traced
    state: Any
    task: Task


def trace_step(config: ConfigDict, mesh: Mesh) -> Step:
    """Trace augmentation, network, loss and update, as the training loop runs them.

    Args:
      config: of training; `data.batch_size` rows of all devices together.
      mesh: of devices that need not be there.
    Raises: ValueError: as `tasks.build`; a batch that does not divide over the devices;
      data that are not there where the task learns its shapes from them.
    """
    accumulate = config.optimizer.accumulate_steps
    mesh_lib.check_batch_size(config.data.batch_size, accumulate, mesh)
    task = tasks.build(_without_evaluators(config), mesh)
    freeze = tuple(config.get("model", {}).get("freeze", ()))
    optimizer = make_optimizer(
        config.optimizer,
        steps=config.steps,
        steps_per_epoch=100.0,  # changes numbers, not the program
        freeze=freeze,
    )
    state = abstract_state(task, mesh, optimizer.transformation)
    step = CompiledStep(
        make_train_step(
            freeze_loss(task.loss, freeze),
            optimizer,
            mesh=mesh,
            accumulate_steps=accumulate,
            sample_classes=task.sample_classes,
        ),
        jax.tree.map(lambda leaf: leaf.sharding, state),
        mesh,
    )
    batch = batch_shapes(config, task, config.data.batch_size)
    return Step(step.trace(state, batch), state, task)


def trace_evaluation(
    config: ConfigDict, step: Step, mesh: Mesh
) -> jax.stages.Traced | None:
    """Trace the embedding of a batch of `evals.batch_size`; None = no recognizer."""
    if step.task.recognizer is None:
        return None
    batch_size = config.evals.batch_size
    mesh_lib.check_batch_size(batch_size, 1, mesh, field="evals.batch_size")
    recognizer = step.task.recognizer(step.state)
    return trace_embedding(
        recognizer, batch_shapes(config, step.task, batch_size), mesh=mesh
    )


def _without_evaluators(config: ConfigDict) -> ConfigDict:
    """The config without what reads data sets to evaluate on."""
    config = config.copy_and_resolve_references()
    with config.unlocked():
        for name in entries(config.evals):
            del config.evals[name]
    config.evals.in_training, config.checkpoint.best_metric = (), ""
    return config


def batch_shapes(
    config: ConfigDict, task: Task, batch_size: int
) -> Mapping[str, jax.ShapeDtypeStruct]:
    """Shapes of a batch, from those of a row or, where unknown, of the data set."""
    row = task.row or jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(np.shape(x), np.asarray(x).dtype),
        dict(task.open_training(config.seed).source[0]),
    )
    return {
        name: jax.ShapeDtypeStruct((batch_size, *leaf.shape), leaf.dtype)
        for name, leaf in row.items()
    }
