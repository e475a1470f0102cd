"""Rules of the published MobileFaceNets: Xiaoccer's and arcface_torch's."""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from kprpe_jax.backbones.mobilefacenet import InsightFaceMobileFaceNet, MobileFaceNet
from kprpe_jax.weights import rules as table
from kprpe_jax.weights.rules import Rule, WeightLayout


def mobilefacenet_layout(
    model: MobileFaceNet, arrays: Mapping[str, np.ndarray]
) -> WeightLayout:
    """Layout of Xiaoccer/MobileFaceNet_Pytorch."""
    rules = []
    names = {"conv1": "conv1", "dw_conv1": "conv2", "conv2": "conv3"}
    for theirs, ours in names.items():
        rules += table.conv_norm(
            f"{theirs}.conv", f"{theirs}.bn", ours, f"{theirs}.prelu"
        )
    for theirs, ours in {"linear7": "pool", "linear1": "head"}.items():
        rules += table.conv_norm(f"{theirs}.conv", f"{theirs}.bn", ours)
    for index in range(sum(count for _, _, count, _ in model.stages)):
        ours = f"blocks_{index}"
        conv = [f"blocks.{index}.conv.{number}" for number in range(8)]
        rules += table.conv_norm(conv[0], conv[1], f"{ours}/expand", conv[2])
        rules += table.conv_norm(conv[3], conv[4], f"{ours}/depthwise", conv[5])
        rules += table.conv_norm(conv[6], conv[7], f"{ours}/project")
    return WeightLayout(rules, table.image_shapes(model), arrays)


def insightface_layout(
    model: InsightFaceMobileFaceNet, arrays: Mapping[str, np.ndarray]
) -> WeightLayout:
    """Layout of arcface_torch's `get_mbf`.

    Raises: ValueError: stages that it cannot have.
    """
    if any(stride > 1 and count > 1 for _, _, count, stride in model.stages):
        raise ValueError(
            "a stage of arcface_torch's MobileFaceNet that halves the "
            f"map has one unit; got {model.stages}."
        )

    def block(theirs: str, ours: str, *, act: bool = True) -> list[Rule]:
        layers = [f"{theirs}.layers.{number}" for number in range(3)]
        return table.conv_norm(*layers[:2], ours, layers[2] if act else None)

    rules = block("layers.0", "conv1") + block("layers.1", "conv2")
    index, place = 0, 1
    for _, _, count, stride in model.stages:  # units of stride 1 are numbered
        place += 1
        for number in range(count):
            theirs, ours = f"layers.{place}", f"blocks_{index}"
            theirs += f".layers.{number}" if stride == 1 else ""
            rules += block(f"{theirs}.layers.0", f"{ours}/expand")
            rules += block(f"{theirs}.layers.1", f"{ours}/depthwise")
            rules += block(f"{theirs}.layers.2", f"{ours}/project", act=False)
            index += 1
    rules += block("conv_sep", "conv3")
    rules += block("features.layers.0", "pool", act=False)
    rules += table.batch_norm("features.layers.3", "head/norm")
    width, dim = model.last_width, model.output_dim
    head = Rule(  # theirs is a linear layer, ours a 1 x 1 convolution
        "features.layers.2.weight",
        "params/head/conv/kernel",
        (1, 0),
        shape=(dim, width),
    )
    return WeightLayout([*rules, head], table.image_shapes(model), arrays)


def insightface_fields(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Widths and stages of a file of arcface_torch's MobileFaceNet.

    The published files are not all of `get_mbf`'s sizes.

    Args:
      arrays: of `load_state_dict`.
    Returns: fields of `InsightFaceMobileFaceNet`; none of a file of another network.
    """

    def size(layer: str, axis: int = 0) -> int:
        return arrays[f"{layer}.weight"].shape[axis]

    try:
        width = stem = size("layers.0.layers.0")
        groups = stem // size("layers.1.layers.0", 1)
        last, output = size("conv_sep.layers.0"), size("features.layers.2")
        stages = []
        for place in itertools.count(2):
            unit, count = f"layers.{place}", 0
            while f"{unit}.layers.{count}.layers.0.layers.0.weight" in arrays:
                count += 1
            unit += ".layers.0" if count else ""
            if f"{unit}.layers.0.layers.0.weight" not in arrays:
                break
            expansion = size(f"{unit}.layers.0.layers.0") // width
            width = size(f"{unit}.layers.2.layers.0")
            stages.append((expansion, width, count or 1, 1 if count else 2))
    except (KeyError, IndexError, ZeroDivisionError):
        return {}
    return dict(
        stages=tuple(stages),
        stem_width=stem,
        stem_groups=groups,
        last_width=last,
        output_dim=output,
    )
