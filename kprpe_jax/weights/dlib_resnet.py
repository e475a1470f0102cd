"""Rules of the face ResNet of dlib."""

from collections.abc import Mapping

import numpy as np

from kprpe_jax.backbones.dlib_resnet import DlibResNet
from kprpe_jax.weights import rules as table
from kprpe_jax.weights.rules import Rule, WeightLayout


def dlib_resnet_layout(
    model: DlibResNet, arrays: Mapping[str, np.ndarray]
) -> WeightLayout:
    """Layout of a DlibResNet; files number its convolutions, as `dlib_file` says."""
    convs = ["stem"]
    for stage, size in enumerate(model.stage_sizes):
        for index in range(size):
            convs += [f"stages_{stage}_{index}/conv{n}" for n in (1, 2)]
    rules = [Rule("fc.weight", "params/head/kernel")]
    for number, target in enumerate(convs):
        rules += table.conv(f"conv{number}", f"{target}/conv")
        rules += table.norm(f"affine{number}", target)
    return WeightLayout(rules, table.image_shapes(model), arrays)
