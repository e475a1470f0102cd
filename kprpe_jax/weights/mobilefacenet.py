"""Published weights in and out of our MobileFaceNet.

Those of Xiaoccer/MobileFaceNet_Pytorch: 112 x 96 images, (x - 127.5) / 128.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kprpe_jax.backbones.mobilefacenet import STAGES, MobileFaceNet
from kprpe_jax.weights import rules as table
from kprpe_jax.weights.rules import Rule
from kprpe_jax.weights.state_dict import load_state_dict


def published_mobilefacenet(**fields: Any) -> MobileFaceNet:
    """MobileFaceNet that computes what the published weights were trained for.

    Args:
      fields: further fields of MobileFaceNet, such as `dtype`.
    """
    return MobileFaceNet(**{**dict(image_size=(112, 96)), **fields})


def import_weights(
    model: MobileFaceNet, source: str | Path | Mapping[str, Any]
) -> dict[str, Any]:
    """Published weights as variables of our MobileFaceNet.

    Args:
      model: from `published_mobilefacenet`.
      source: as `load_state_dict` takes it.
    Returns: `params` and `batch_stats`, float32 NumPy arrays.
    Raises: ValueError: lists every missing, surplus and misshapen name.
    """
    return table.import_state_dict(load_state_dict(source), **_plan(model))


def export_weights(
    model: MobileFaceNet, variables: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Variables, or gradients, under their published names and shapes."""
    return table.export_state_dict(variables, _plan(model)["rules"])


def _plan(model: MobileFaceNet) -> dict[str, Any]:
    images = jnp.zeros((1, *model.image_size, 3))
    shapes = table.flat_shapes(jax.eval_shape(model.init, jax.random.key(0), images))
    return dict(rules=_rules(), shapes=shapes, network="this MobileFaceNet")


def _rules() -> list[Rule]:
    rules = []
    names = {"conv1": "conv1", "dw_conv1": "conv2", "conv2": "conv3"}
    for theirs, ours in names.items():
        parts = (f"{theirs}.{part}" for part in ("conv", "bn", "prelu"))
        rules += _conv_norm(ours, *parts)
    for theirs, ours in {"linear7": "pool", "linear1": "head"}.items():
        rules += _conv_norm(ours, f"{theirs}.conv", f"{theirs}.bn")
    for index in range(sum(count for _, _, count, _ in STAGES)):
        theirs, ours = f"blocks.{index}.conv", f"blocks_{index}"
        parts = [f"{theirs}.{number}" for number in range(8)]
        rules += _conv_norm(f"{ours}/expand", *parts[0:3])
        rules += _conv_norm(f"{ours}/depthwise", *parts[3:6])
        rules += _conv_norm(f"{ours}/project", *parts[6:8])
    return rules


def _conv_norm(ours: str, conv: str, norm: str, act: str | None = None) -> list[Rule]:
    rules = table.conv(conv, f"{ours}/conv", bias=False)
    rules += table.batch_norm(norm, f"{ours}/norm")
    if act is not None:
        rules.append(Rule(f"{act}.weight", f"params/{ours}/act/slope"))
    return rules
