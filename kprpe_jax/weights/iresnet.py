"""Rules of the official iResNets, both naming schemes, and of the gray ArcFace."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from kprpe_jax.backbones.arcface_resnet import ArcFaceResNet
from kprpe_jax.backbones.iresnet import IResNet
from kprpe_jax.weights import rules as table
from kprpe_jax.weights.rules import Rule, WeightLayout


class IResNetNames(NamedTuple):
    """Official names of the network's parts, and of a unit's parts inside of it.

    Attributes:
      stem: convolution, norm and activation.
      norm, head, head_norm: before, in and after the last linear layer.
      norms, convs, act, shortcut: of a unit.
    """

    stem: tuple[str, str, str]
    norm: str
    head: str
    head_norm: str
    norms: tuple[str, str, str]
    convs: tuple[str, str]
    act: str
    shortcut: str


BODY_NAMES = IResNetNames(  # units body.0, body.1, ...
    ("input_layer.0", "input_layer.1", "input_layer.2"), "output_layer.0",
    "output_layer.3", "output_layer.4", ("res_layer.0", "res_layer.2", "res_layer.5"),
    ("res_layer.1", "res_layer.4"), "res_layer.3", "shortcut_layer",
)  # fmt: skip
LAYER_NAMES = IResNetNames(  # units layer1.0, layer1.1, ... layer2.0, ...
    ("conv1", "bn1", "prelu"), "bn2", "fc", "features", ("bn1", "bn2", "bn3"),
    ("conv1", "conv2"), "prelu", "downsample",
)  # fmt: skip
_GRAY = LAYER_NAMES._replace(
    norm="bn4", head="fc5", head_norm="bn5", norms=("bn0", "bn1", "bn2")
)


def iresnet_layout(model: IResNet, arrays: Mapping[str, np.ndarray]) -> WeightLayout:
    """Layout of an IResNet of one of the VARIANTS.

    Raises: ValueError: options that no official weights are made for.
    """
    if model.head_affine != (model.shortcut == "conv") or (
        model.head_affine and model.squeeze_excite
    ):
        raise ValueError(
            "official iResNets are the VARIANTS, squeeze_excite only "
            f"with shortcut 'subsample'; got shortcut {model.shortcut!r}, head_affine="
            f"{model.head_affine}, squeeze_excite={model.squeeze_excite}."
        )
    names = LAYER_NAMES if model.head_affine else BODY_NAMES
    return _layout(model, arrays, names, model.shortcut)


def arcface_layout(
    model: ArcFaceResNet, arrays: Mapping[str, np.ndarray]
) -> WeightLayout:
    """Layout of the gray ArcFace ResNet-18."""
    return _layout(model, arrays, _GRAY)


def _layout(
    model: IResNet | ArcFaceResNet,
    arrays: Mapping[str, np.ndarray],
    names: IResNetNames,
    variant: str = "",
) -> WeightLayout:
    """Layout of a network of units by the names of its parts."""
    shapes = table.image_shapes(model)
    head_norm = table.batch_norm(names.head_norm, "head_norm")
    rules = [
        *table.conv(names.stem[0], "stem_conv", bias=False),
        *table.batch_norm(names.stem[1], "stem_norm"),
        Rule(f"{names.stem[2]}.weight", "params/stem_act/slope"),
        *table.batch_norm(names.norm, "norm"),
        *table.linear(names.head, "head"),
        # A norm without scale and bias has statistics only.
        *(rule for rule in head_norm if rule.target in shapes),
    ]
    number = 0
    for stage, size in enumerate(model.stage_sizes):
        for index in range(size):
            ours, theirs = f"stages_{stage}_{index}", f"layer{stage + 1}.{index}"
            if names is BODY_NAMES:
                theirs, number = f"body.{number}", number + 1
            rules += _unit_rules(ours, theirs, names, shapes)
    return WeightLayout(rules, shapes, arrays, variant=variant)


def _unit_rules(
    ours: str, theirs: str, names: IResNetNames, shapes: Mapping[str, tuple[int, ...]]
) -> list[Rule]:
    rules = [Rule(f"{theirs}.{names.act}.weight", f"params/{ours}/act/slope")]
    for number, norm in enumerate(names.norms, 1):
        rules += table.batch_norm(f"{theirs}.{norm}", f"{ours}/norm{number}")
    for number, conv in enumerate(names.convs, 1):
        rules += table.conv(f"{theirs}.{conv}", f"{ours}/conv{number}", bias=False)
    if f"params/{ours}/shortcut_conv/kernel" in shapes:
        shortcut = f"{theirs}.{names.shortcut}"
        rules += table.conv(f"{shortcut}.0", f"{ours}/shortcut_conv", bias=False)
        rules += table.batch_norm(f"{shortcut}.1", f"{ours}/shortcut_norm")
    for part, name in (("squeeze", "fc1"), ("excite", "fc2")):
        target = f"params/{ours}/gate/{part}/kernel"
        if target in shapes:  # theirs are 1 x 1 convolutions
            width_in, width_out = shapes[target]
            source = f"{theirs}.res_layer.se_block.{name}.weight"
            shape = (width_out, width_in, 1, 1)
            rules.append(Rule(source, target, (1, 0, 2, 3), shape=shape))
    return rules
