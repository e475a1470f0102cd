"""The training step of a recognition config, compiled but not run, for any devices."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from kprpe_jax import tasks
from kprpe_jax.backbones.vit import PRESETS
from kprpe_jax.configs import kprpe_faces
from kprpe_jax.configs.base import set_evaluators
from kprpe_jax.core import mesh as mesh_lib
from kprpe_jax.training.optimizer import make_optimizer
from kprpe_jax.training.state import abstract_state
from kprpe_jax.training.step import make_train_step

# Fields of the model, beside those of the recipe; iRPE as in the paper's Table 3.
ENCODINGS: dict[str, dict[str, Any]] = {
    "plain": {"position": "absolute"},
    "irpe": {"position": "irpe"},
    "kprpe": {"position": "kprpe_multihead"},
}


class Step(NamedTuple):
    """A step and shapes of what it takes.

    Attributes:
      traced: the step.
      state: of shapes with their shardings.
    """

    traced: jax.stages.Traced
    state: Any


def make_config(
    *,
    preset: str,
    identities: int,
    encoding: str = "kprpe",
    dtype: str = "bfloat16",
    sample_rate: float = 1.0,
    **model: Any,
) -> ConfigDict:
    """`configs/kprpe_faces.py` with another size; further arguments are the model's.

    Args:
      preset: of `vit.PRESETS`.
      identities: class centers.
      encoding: of ENCODINGS.
      dtype: compute type.
      sample_rate: of PartialFC.
    """
    config = kprpe_faces.get_config()
    config.model.update(PRESETS[preset] | ENCODINGS[encoding] | {"scan": True} | model)
    if encoding == "irpe":
        config.model.position_options.per_head = False
    config.model.dtype = dtype
    config.data.num_classes, config.loss.sample_rate = identities, sample_rate
    set_evaluators(config, {})
    return config


def trace_step(config: ConfigDict, mesh: Mesh, batch: int) -> Step:
    """Trace augmentation, network, loss and update for a mesh.

    Args:
      config: of `make_config`.
      mesh: of devices that need not be there.
      batch: images of all devices together.
    """
    task = tasks.build(config, mesh)
    optimizer = make_optimizer(config.optimizer, steps=1000, steps_per_epoch=100.0)
    state = abstract_state(task, mesh, optimizer.transformation)
    update = make_train_step(
        task.loss, optimizer, mesh=mesh, accumulate_steps=1,
        sample_classes=task.sample_classes,
    )  # fmt: skip
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    step = jax.jit(  # as `CompiledStep` does it
        update,
        in_shardings=(shardings, mesh_lib.batch_sharding(mesh)),
        out_shardings=(shardings, mesh_lib.replicated(mesh)),
        donate_argnums=0,
    )
    return Step(step.trace(state, example_batch(config, batch)), state)


def example_batch(config: ConfigDict, batch: int) -> Mapping[str, jax.ShapeDtypeStruct]:
    """Shapes of what the loader gives."""
    shape, points = tuple(config.data.image_shape), config.data.num_keypoints
    rows = {
        "image": ((batch, *shape), np.uint8),
        "label": ((batch,), np.int32),
        "keypoints": ((batch, points, 2), np.float32),
        "has_keypoints": ((batch,), np.bool_),
    }
    return {name: jax.ShapeDtypeStruct(*row) for name, row in rows.items()}
