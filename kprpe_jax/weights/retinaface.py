"""Official weights of RetinaFace and of the differentiable face aligner."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kprpe_jax.detection.differentiable_aligner import DifferentiableAligner
from kprpe_jax.detection.retinaface import STAGES, RetinaFace
from kprpe_jax.weights import rules as table
from kprpe_jax.weights.rules import Rule
from kprpe_jax.weights.state_dict import load_state_dict

Network = RetinaFace | DifferentiableAligner

_CONTEXT = {  # ours -> official
    "view3": "conv3X3",
    "shared": "conv5X5_1",
    "view5": "conv5X5_2",
    "inner7": "conv7X7_2",
    "view7": "conv7x7_3",
}
_HEADS = {"boxes": "BboxHead", "logits": "ClassHead", "keypoints": "LandmarkHead"}


def official_retinaface(**fields: Any) -> RetinaFace:
    """The released MobileNet-0.25 detector: plain ReLU, BGR minus the mean.

    Args:
      **fields: further fields of RetinaFace, such as `dtype`.
    """
    return RetinaFace(**dict(activation="relu", pixels="bgr_minus_mean", **fields))


def official_aligner(**fields: Any) -> DifferentiableAligner:
    """The released aligner: decoded mixer input, BGR, half a pixel off, detached.

    Args:
      **fields: further fields of DifferentiableAligner, such as `output_size`; one of
        those named here replaces the official choice.
    """
    official = dict(
        mixer_input="decoded",
        sampled="network_input",
        align_corners=True,
        stop_gradient=True,
        activation="leaky_relu",
        pixels="bgr",
    )
    return DifferentiableAligner(**official | fields)


def import_weights(
    model: Network, source: str | Path | Mapping[str, Any]
) -> dict[str, Any]:
    """Official weights as variables of our network.

    Args:
      model: `official_retinaface()`, `official_aligner()` or one of other sizes.
      source: as `load_state_dict` takes it.
    Returns: `params` and `batch_stats`, float32 NumPy arrays.
    Raises: ValueError: lists every missing, surplus and misshapen name.
    """
    return table.import_state_dict(load_state_dict(source), **_plan(model))


def check_weights(model: Network, source: str | Path | Mapping[str, Any]) -> None:
    """Raise what `import_weights` would raise, without copying the weights."""
    table.check_state_dict(load_state_dict(source), **_plan(model))


def export_weights(
    model: Network, variables: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Variables, or gradients, under their official names and shapes."""
    return table.export_state_dict(variables, _plan(model)["rules"])


def _plan(model: Network) -> dict[str, Any]:
    aligner = isinstance(model, DifferentiableAligner)
    side = model.input_size if aligner else 32
    shapes = table.flat_shapes(
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, side, side, 3)))
    )
    rules = retinaface_rules("detector/" if aligner else "")
    if aligner:
        rules += mixer_rules(model.mixer_depth)
    return dict(rules=rules, shapes=shapes, network=f"this {type(model).__name__}")


def retinaface_rules(target: str = "") -> list[Rule]:
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


def mixer_rules(depth: int) -> list[Rule]:
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
    return [
        *table.conv(f"{source}.{first}", f"{target}/conv", bias=False),
        *table.batch_norm(f"{source}.{first + 1}", f"{target}/norm"),
    ]
