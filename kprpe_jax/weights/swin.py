"""Official weights in and out of our Swin."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kprpe_jax.backbones.swin import PRESETS, Swin
from kprpe_jax.position.window_bias import WindowKeypointBias
from kprpe_jax.weights import rules as table
from kprpe_jax.weights.rules import Rule
from kprpe_jax.weights.state_dict import load_state_dict

OFFICIAL = {
    f"swin_{preset}": preset
    for preset in ("small", "base", "kprpe_small", "kprpe_base")
}  # name -> preset
BUFFERS = ("relative_position_index", "relative_coords_table")  # of offsets, computed


def official_swin(name: str, **fields: Any) -> Swin:
    """Swin of a released network, such as `swin_kprpe_base`.

    Args:
      name: key of OFFICIAL.
      fields: further fields of Swin, such as `drop_path_rate`, `dtype`.
    Raises: ValueError: unknown name.
    """
    if name not in OFFICIAL:
        raise ValueError(
            f"official_swin: unknown network {name!r}; use one of "
            f"{', '.join(OFFICIAL)}."
        )
    options = dict(mask_padding=False, position_options=dict(mesh="image"))
    return Swin(**{**PRESETS[OFFICIAL[name]], **options, **fields})


def import_weights(
    model: Swin | str, source: str | Path | Mapping[str, Any]
) -> dict[str, Any]:
    """Official weights as variables of our Swin.

    Args:
      model: a Swin, or a name that `official_swin` knows.
      source: as `load_state_dict` takes it.
    Returns: `params` and `batch_stats`, float32 NumPy arrays.
    Raises: ValueError: lists every missing, surplus and misshapen name; or the model's
      options are not those that official weights are made for.
    """
    return table.import_state_dict(_load(source), **_plan(model))


def check_weights(model: Swin | str, source: str | Path | Mapping[str, Any]) -> None:
    """Raise what `import_weights` would raise, without copying the weights."""
    table.check_state_dict(_load(source), **_plan(model))


def export_weights(
    model: Swin | str, variables: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Variables, or gradients, under their official names, the buffers left out.

    The prefix `net.` of the released files is left out, too.
    """
    return table.export_state_dict(variables, _plan(model)["rules"])


def without_buffers(state_dict: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What is learned or collected, not what follows from the window alone."""
    return {k: v for k, v in state_dict.items() if not k.endswith(BUFFERS)}


def block_rules(theirs: str, ours: str, mlp: tuple[str, str], width: int) -> list[Rule]:
    """Rules of a window block but for its position bias.

    Args:
      theirs, ours: names of the block.
      mlp: their names of the two layers.
      width: C.
    """
    return [
        *table.norm(f"{theirs}.norm1", f"{ours}/norm1"),
        *table.linear(f"{theirs}.attn.qkv", f"{ours}/attention/qkv", bias=False),
        Rule(
            f"{theirs}.attn.qkv.bias",
            f"params/{ours}/attention/qkv_bias",
            shape=(3 * width,),
        ),
        *table.linear(f"{theirs}.attn.proj", f"{ours}/attention/proj"),
        *table.norm(f"{theirs}.norm2", f"{ours}/norm2"),
        *table.linear(f"{theirs}.mlp.{mlp[0]}", f"{ours}/mlp/fc1"),
        *table.linear(f"{theirs}.mlp.{mlp[1]}", f"{ours}/mlp/fc2"),
    ]


def _load(source: str | Path | Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Names without `net.`, which the keypoint layers do not have."""
    loaded = without_buffers(load_state_dict(source))
    return {name.removeprefix("net."): array for name, array in loaded.items()}


def _plan(model: Swin | str) -> dict[str, Any]:
    network = model if isinstance(model, str) else f"this Swin ({model.position})"
    if isinstance(model, str):
        model = official_swin(model)
    options = model.position_options or {}
    mesh = options.get("mesh", WindowKeypointBias.mesh)
    if model.mask_padding or (model.uses_keypoints and mesh != "image"):
        raise ValueError(
            "import_weights: official weights look at padding and, with keypoints, use "
            f"the image's mesh; got mask_padding={model.mask_padding}, mesh {mesh!r}; "
            "set mask_padding=False and position_options['mesh']='image'."
        )
    images = jnp.zeros((1, *model.image_size, model.channels))
    count = options.get("num_keypoints", WindowKeypointBias.num_keypoints)
    keypoints = jnp.zeros((1, count, 2)) if model.uses_keypoints else None
    shapes = table.flat_shapes(
        jax.eval_shape(model.init, jax.random.key(0), images, keypoints)
    )
    return dict(rules=swin_rules(model, shapes), shapes=shapes, network=network)


def swin_rules(model: Swin, shapes: Mapping[str, tuple[int, ...]]) -> list[Rule]:
    """Rules of the official Swins, plain and with keypoints.

    Args:
      model: decides what each numbered layer is.
      shapes: of its variables, by path.
    """
    rules = [
        *table.conv("features.0.0", "patch_embed"),
        *table.norm("features.0.2", "patch_norm"),
        *table.norm("norm", "norm"),
        *table.linear("feature.0", "head/linear1", bias=False),
        *table.batch_norm("feature.1", "head/norm1"),
        *table.linear("feature.2", "head/linear2", bias=False),
        *table.batch_norm("feature.3", "head/norm2"),
    ]
    number = 0
    for stage, depth in enumerate(model.depths):
        if stage:
            theirs, ours = f"features.{number + 1}", f"layers_{number}"
            rules += table.linear(
                f"{theirs}.reduction", f"{ours}/reduction", bias=False
            )
            rules += table.norm(f"{theirs}.norm", f"{ours}/norm")
            number += 1
        for _ in range(depth):
            theirs, ours = f"features.{number + 1}", f"layers_{number}"
            rules += block_rules(theirs, ours, ("0", "3"), model.width << stage)
            attention = f"{ours}/attention"
            rules.append(
                Rule(f"{theirs}.attn.logit_scale", f"params/{attention}/logit_scale")
            )
            bias = f"{attention}/offset_bias"
            if f"params/{bias}/hidden/kernel" in shapes:
                cpb = f"{theirs}.attn.cpb_mlp"
                rules += table.linear(f"{cpb}.0", f"{bias}/hidden")
                rules += table.linear(f"{cpb}.2", f"{bias}/out", bias=False)
            number += 1
        if model.uses_keypoints:
            target, source = f"params/keypoint_bias_{stage}", f"keypoint_linear.{stage}"
            inputs, *outputs = shapes[f"{target}/kernel"]
            size = int(np.prod(outputs))
            rules += [
                Rule(
                    f"{source}.weight", f"{target}/kernel", (1, 0), shape=(size, inputs)
                ),
                Rule(f"{source}.bias", f"{target}/bias", shape=(size,)),
            ]
    return rules
