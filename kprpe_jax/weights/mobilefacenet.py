"""Rules of the published MobileFaceNet, Xiaoccer/MobileFaceNet_Pytorch."""

from collections.abc import Mapping

import numpy as np

from kprpe_jax.backbones.mobilefacenet import STAGES, MobileFaceNet
from kprpe_jax.weights import rules as table
from kprpe_jax.weights.rules import WeightLayout


def mobilefacenet_layout(
    model: MobileFaceNet, arrays: Mapping[str, np.ndarray]
) -> WeightLayout:
    """Layout of a MobileFaceNet."""
    rules = []
    names = {"conv1": "conv1", "dw_conv1": "conv2", "conv2": "conv3"}
    for theirs, ours in names.items():
        rules += table.conv_norm(
            f"{theirs}.conv", f"{theirs}.bn", ours, f"{theirs}.prelu"
        )
    for theirs, ours in {"linear7": "pool", "linear1": "head"}.items():
        rules += table.conv_norm(f"{theirs}.conv", f"{theirs}.bn", ours)
    for index in range(sum(count for _, _, count, _ in STAGES)):
        ours = f"blocks_{index}"
        conv = [f"blocks.{index}.conv.{number}" for number in range(8)]
        rules += table.conv_norm(conv[0], conv[1], f"{ours}/expand", conv[2])
        rules += table.conv_norm(conv[3], conv[4], f"{ours}/depthwise", conv[5])
        rules += table.conv_norm(conv[6], conv[7], f"{ours}/project")
    return WeightLayout(rules, table.image_shapes(model), arrays)
