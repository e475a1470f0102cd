"""Rules of the official iResNets, both naming schemes."""

from collections.abc import Mapping

import numpy as np

from kprpe_jax.backbones.iresnet import IResNet
from kprpe_jax.weights import rules as table
from kprpe_jax.weights.rules import Rule, WeightLayout

# Parts of a unit: ours -> in a `body` unit, in a `layer` unit.
_NORMS = {"norm1": ("0", "bn1"), "norm2": ("2", "bn2"), "norm3": ("5", "bn3")}
_CONVS = {"conv1": ("1", "conv1"), "conv2": ("4", "conv2")}
_ACT = ("3", "prelu")


def iresnet_layout(model: IResNet, arrays: Mapping[str, np.ndarray]) -> WeightLayout:
    """Layout of an IResNet of one of the VARIANTS.

    Raises: ValueError: options that no official weights are made for.
    """
    shapes = table.image_shapes(model)
    return WeightLayout(
        iresnet_rules(model, shapes), shapes, arrays, variant=model.shortcut
    )


def iresnet_rules(model: IResNet, shapes: Mapping[str, tuple[int, ...]]) -> list[Rule]:
    """Rules for all official iResNets.

    Args:
      model: decides which of the two naming schemes is meant.
      shapes: of its variables, by path.
    """
    if model.head_affine != (model.shortcut == "conv") or (
        model.head_affine and model.squeeze_excite
    ):
        raise ValueError(
            "import_weights: official iResNets are the VARIANTS, squeeze_excite only "
            f"with shortcut 'subsample'; got shortcut {model.shortcut!r}, head_affine="
            f"{model.head_affine}, squeeze_excite={model.squeeze_excite}."
        )
    scheme = 1 if model.head_affine else 0
    stem, norm, head, head_norm = (
        (("input_layer.0", "input_layer.1", "input_layer.2"), "output_layer.0",
         "output_layer.3", "output_layer.4"),
        (("conv1", "bn1", "prelu"), "bn2", "fc", "features"),
    )[scheme]  # fmt: skip
    rules = [
        *table.conv(stem[0], "stem_conv", bias=False),
        *table.batch_norm(stem[1], "stem_norm"),
        Rule(f"{stem[2]}.weight", "params/stem_act/slope"),
        *table.batch_norm(norm, "norm"),
        *table.linear(head, "head"),
        # A norm without scale and bias has statistics only.
        *table.batch_norm(head_norm, "head_norm")[0 if model.head_affine else 2 :],
    ]
    number = 0
    for stage, size in enumerate(model.stage_sizes):
        for index in range(size):
            ours = f"stages_{stage}_{index}"
            theirs = (f"body.{number}", f"layer{stage + 1}.{index}")[scheme]
            rules += _unit_rules(ours, theirs, scheme, shapes)
            number += 1
    return rules


def _unit_rules(
    ours: str, theirs: str, scheme: int, shapes: Mapping[str, tuple[int, ...]]
) -> list[Rule]:
    branch = (f"{theirs}.res_layer", theirs)[scheme]
    shortcut = f"{theirs}.{('shortcut_layer', 'downsample')[scheme]}"
    rules = [Rule(f"{branch}.{_ACT[scheme]}.weight", f"params/{ours}/act/slope")]
    for part, names in _NORMS.items():
        rules += table.batch_norm(f"{branch}.{names[scheme]}", f"{ours}/{part}")
    for part, names in _CONVS.items():
        rules += table.conv(f"{branch}.{names[scheme]}", f"{ours}/{part}", bias=False)
    if f"params/{ours}/shortcut_conv/kernel" in shapes:
        rules += table.conv(f"{shortcut}.0", f"{ours}/shortcut_conv", bias=False)
        rules += table.batch_norm(f"{shortcut}.1", f"{ours}/shortcut_norm")
    for part, name in (("squeeze", "fc1"), ("excite", "fc2")):
        target = f"params/{ours}/gate/{part}/kernel"
        if target in shapes:  # theirs are 1 x 1 convolutions
            width_in, width_out = shapes[target]
            source = f"{branch}.se_block.{name}.weight"
            shape = (width_out, width_in, 1, 1)
            rules.append(Rule(source, target, (1, 0, 2, 3), shape=shape))
    return rules
