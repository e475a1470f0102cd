"""The training step of a recognition config, compiled but not run, for any devices."""

from typing import Any

from jax.sharding import Mesh
from ml_collections import ConfigDict

from kprpe_jax.backbones.vit import PRESETS
from kprpe_jax.compiled import step
from kprpe_jax.compiled.step import Step
from kprpe_jax.configs import kprpe_faces
from kprpe_jax.configs.base import set_evaluators

# Fields of the model, beside those of the recipe; iRPE as in the paper's Table 3.
ENCODINGS: dict[str, dict[str, Any]] = {
    "plain": {"position": "absolute"},
    "irpe": {"position": "irpe"},
    "kprpe": {"position": "kprpe_multihead"},
}


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
    config.data.batch_size = batch
    return step.trace_step(config, mesh)
