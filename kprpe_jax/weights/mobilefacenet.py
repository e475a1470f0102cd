"""Rules of the published MobileFaceNet, Xiaoccer/MobileFaceNet_Pytorch."""

from collections.abc import Mapping

import numpy as np

from kprpe_jax.backbones.mobilefacenet import STAGES, MobileFaceNet
from kprpe_jax.weights import rules as table
from kprpe_jax.weights.rules import Rule, WeightLayout


def mobilefacenet_layout(
    model: MobileFaceNet, arrays: Mapping[str, np.ndarray]
) -> WeightLayout:
    """Layout of a MobileFaceNet."""
    return WeightLayout(_rules(), table.image_shapes(model), arrays)


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
