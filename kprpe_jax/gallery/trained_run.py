"""The state of a trained run, read back without the data set that it was trained on."""

import os
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from kprpe_jax.core import mesh as mesh_lib
from kprpe_jax.tasks.recognition import SHARDING_RULES
from kprpe_jax.tasks.task import Task
from kprpe_jax.training.checkpoint import restore_for_eval
from kprpe_jax.training.state import TrainState, abstract_state


def one_device() -> Mesh:
    """Mesh of the first device alone."""
    return mesh_lib.make_mesh(dict.fromkeys(mesh_lib.AXES, 1), jax.devices()[:1])


def restore_run(
    config: ConfigDict,
    workdir: str | os.PathLike,
    init: Callable[[jax.Array], dict[str, Any]],
    *,
    checkpoint: int | str,
) -> TrainState:
    """Restore a run on faces or pairs onto one device.

    Args:
      config: of the run.
      workdir: its folder.
      init: its task's, key -> variables.
      checkpoint: a step, "last" or "best".
    Raises: ValueError: no such checkpoint, or one of another network.
    """
    unused = dict.fromkeys(("loss", "open_training", "check_batch"))
    task = Task(init, **unused, evaluators={}, sharding_rules=SHARDING_RULES)
    return restore_for_eval(
        workdir, checkpoint, abstract_state(task, one_device()), config
    )
