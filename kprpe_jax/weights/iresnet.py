"""Official weights in and out of our iResNet."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kprpe_jax.backbones.iresnet import PRESETS, VARIANTS, IResNet
from kprpe_jax.weights import rules as table
from kprpe_jax.weights.rules import Rule
from kprpe_jax.weights.state_dict import load_state_dict

OFFICIAL = {
    pattern.format(preset): (preset, variant)
    for pattern, variant in (
        ("iresnet_{}", "cvlface"),
        ("iresnet_insightface_{}", "insightface"),
    )
    for preset in PRESETS
}  # name -> (preset, variant)

# Parts of a unit: ours -> in a `body` unit, in a `layer` unit.
_NORMS = {"norm1": ("0", "bn1"), "norm2": ("2", "bn2"), "norm3": ("5", "bn3")}
_CONVS = {"conv1": ("1", "conv1"), "conv2": ("4", "conv2")}
_ACT = ("3", "prelu")


def official_iresnet(name: str, **fields: Any) -> IResNet:
    """IResNet of a released network, such as `iresnet_insightface_ir101`.

    Args:
      name: key of OFFICIAL.
      fields: further fields of IResNet, such as `squeeze_excite`, `dtype`.
    Raises: ValueError: unknown name.
    """
    if name not in OFFICIAL:
        raise ValueError(
            f"official_iresnet: unknown network {name!r}; use one of "
            f"{', '.join(OFFICIAL)}."
        )
    preset, variant = OFFICIAL[name]
    return IResNet(**{**PRESETS[preset], **VARIANTS[variant], **fields})


def import_weights(
    model: IResNet | str, source: str | Path | Mapping[str, Any]
) -> dict[str, Any]:
    """Official weights as variables of our IResNet.

    Args:
      model: an IResNet of one of the VARIANTS, or a name that `official_iresnet` knows.
      source: as `load_state_dict` takes it.
    Returns: `params` and `batch_stats`, float32 NumPy arrays.
    Raises: ValueError: lists every missing, surplus and misshapen name; or the model's
      options are not those that official weights are made for.
    """
    return table.import_state_dict(load_state_dict(source), **_plan(model))


def check_weights(model: IResNet | str, source: str | Path | Mapping[str, Any]) -> None:
    """Raise what `import_weights` would raise, without copying the weights."""
    table.check_state_dict(load_state_dict(source), **_plan(model))


def export_weights(
    model: IResNet | str, variables: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Variables, or gradients, under their official names and shapes."""
    return table.export_state_dict(variables, _plan(model)["rules"])


def _plan(model: IResNet | str) -> dict[str, Any]:
    network = model if isinstance(model, str) else f"this IResNet ({model.shortcut})"
    if isinstance(model, str):
        model = official_iresnet(model)
    images = jnp.zeros((1, *model.image_size, 3))
    shapes = table.flat_shapes(jax.eval_shape(model.init, jax.random.key(0), images))
    return dict(rules=iresnet_rules(model, shapes), shapes=shapes, network=network)


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
