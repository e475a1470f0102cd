"""Rules of the official Swins, plain and with keypoints."""

from collections.abc import Mapping

import numpy as np

from kprpe_jax.backbones.swin import Swin
from kprpe_jax.position.window_bias import WindowKeypointBias
from kprpe_jax.weights import rules as table
from kprpe_jax.weights.rules import Rule, WeightLayout

BUFFERS = ("relative_position_index", "relative_coords_table")  # of offsets, computed


def swin_layout(model: Swin, arrays: Mapping[str, np.ndarray]) -> WeightLayout:
    """Layout of a Swin; buffers and the prefix `net.` are left out.

    Raises: ValueError: options that no official weights are made for.
    """
    mesh = (model.position_options or {}).get("mesh", WindowKeypointBias.mesh)
    if model.mask_padding or (model.uses_keypoints and mesh != "image"):
        raise ValueError(
            "official weights attend to padding and, with keypoints, "
            f"use the image's mesh; got mask_padding={model.mask_padding}, mesh "
            f"{mesh!r}; set mask_padding=False and position_options['mesh']='image'."
        )
    arrays = {k.removeprefix("net."): v for k, v in without_buffers(arrays).items()}
    shapes = table.image_shapes(model)
    return WeightLayout(_rules(model, shapes), shapes, arrays, variant=model.position)


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
    source, target = f"{theirs}.attn.qkv.bias", f"params/{ours}/attention/qkv_bias"
    return [
        *table.transformer_block(theirs, ours, mlp=mlp),
        Rule(source, target, shape=(3 * width,)),
    ]


def _rules(model: Swin, shapes: Mapping[str, tuple[int, ...]]) -> list[Rule]:
    """Rules of the official Swins; the model decides what each numbered layer is."""
    rules = [
        *table.conv("features.0.0", "patch_embed"),
        *table.norm("features.0.2", "patch_norm"),
        *table.norm("norm", "norm"),
        *table.embedding_head("feature", "head"),
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
            source, target = f"keypoint_linear.{stage}", f"keypoint_bias_{stage}"
            rules += table.table_layer(source, target, shapes)
    return rules
