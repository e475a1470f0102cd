"""Rules of RetinaFace and of the differentiable face aligner."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from kprpe_jax.detection.differentiable_aligner import DifferentiableAligner
from kprpe_jax.detection.retinaface import STAGES, RetinaFace
from kprpe_jax.weights import rules as table
from kprpe_jax.weights.rules import Rule, WeightLayout

_CONTEXT = {  # ours -> official
    "view3": "conv3X3",
    "shared": "conv5X5_1",
    "view5": "conv5X5_2",
    "inner7": "conv7X7_2",
    "view7": "conv7x7_3",
}
_HEADS = {"boxes": "BboxHead", "logits": "ClassHead", "keypoints": "LandmarkHead"}


def retinaface_layout(
    model: RetinaFace, arrays: Mapping[str, np.ndarray]
) -> WeightLayout:
    """Layout of the detector."""
    shapes = table.variable_shapes(model, jnp.zeros((1, 32, 32, 3)))
    return WeightLayout(_detector_rules(), shapes, arrays)


def aligner_layout(
    model: DifferentiableAligner, arrays: Mapping[str, np.ndarray]
) -> WeightLayout:
    """Layout of the aligner: the detector and its mixer."""
    images = jnp.zeros((1, model.input_size, model.input_size, 3))
    rules = _detector_rules("detector/") + _mixer_rules(model.mixer_depth)
    return WeightLayout(rules, table.variable_shapes(model, images), arrays)


def _detector_rules(target: str = "") -> list[Rule]:
    """Rules of the detector; `target` is the path of ours, with a slash at its end."""
    rules = _conv_norm("body.stage1.0", 0, f"{target}body/stem")
    for number, blocks in enumerate(STAGES, start=1):
        for index in range(len(blocks)):
            # The first entry of the official first stage is the stem.
            theirs = f"body.stage{number}.{index + (number == 1)}"
            ours = f"{target}body/stage{number}_{index}"
            rules += _conv_norm(theirs, 0, f"{ours}_depthwise")
            rules += _conv_norm(theirs, 3, f"{ours}_pointwise")
    for level in (1, 2, 3):
        rules += _conv_norm(f"fpn.output{level}", 0, f"{target}fpn/output{level}")
        if level < 3:
            rules += _conv_norm(f"fpn.merge{level}", 0, f"{target}fpn/merge{level}")
        for ours, theirs in _CONTEXT.items():
            rules += _conv_norm(
                f"ssh{level}.{theirs}", 0, f"{target}context{level}/{ours}"
            )
        for ours, theirs in _HEADS.items():
            rules += table.conv(
                f"{theirs}.{level - 1}.conv1x1", f"{target}{ours}{level}"
            )
    return rules


def _mixer_rules(depth: int) -> list[Rule]:
    """Rules of the aligner's mixer."""
    rules = table.linear(f"aggregator.{depth}", "aggregator/out")
    for n in range(depth):
        theirs, ours = f"aggregator.{n}", f"aggregator/block{n}"
        for norm in ("norm1", "norm2"):
            rules += table.norm(f"{theirs}.{norm}", f"{ours}/{norm}")
        for mlp in ("tokens", "channels"):
            for layer in ("fc1", "fc2"):
                rules += table.linear(
                    f"{theirs}.mlp_{mlp}.{layer}", f"{ours}/{mlp}/{layer}"
                )
    return rules


def _conv_norm(source: str, first: int, target: str) -> list[Rule]:
    """Convolution and batch norm at two consecutive places of a sequence."""
    return table.conv_norm(f"{source}.{first}", f"{source}.{first + 1}", target)
