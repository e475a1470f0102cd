"""Rules of the official vision transformers."""

from collections.abc import Mapping

import numpy as np

from kprpe_jax.backbones.vit import ViT
from kprpe_jax.position.buckets import compute_buckets
from kprpe_jax.position.encoding import PositionBias
from kprpe_jax.weights import rules as table
from kprpe_jax.weights.rules import Rule, WeightLayout


def vit_layout(model: ViT, arrays: Mapping[str, np.ndarray]) -> WeightLayout:
    """Layout of a ViT, `scan` or unrolled.

    Raises: ValueError: options that no official weights are made for.
    """
    shapes = table.image_shapes(model)
    return WeightLayout(
        vit_rules(model, shapes), shapes, arrays, variant=model.position
    )


def vit_rules(model: ViT, shapes: Mapping[str, tuple[int, ...]]) -> list[Rule]:
    """Rules for all official vision transformers.

    Args:
      model: decides how layers are stored and which position tables there are.
      shapes: of its variables, by path.
    """
    rules = [
        *table.conv("patch_embed.proj", "patch_embed"),
        *table.norm("norm", "norm"),
        *table.linear("feature.0", "head/linear1", bias=False),
        *table.batch_norm("feature.1", "head/norm1"),
        *table.linear("feature.2", "head/linear2", bias=False),
        *table.batch_norm("feature.3", "head/norm2"),
    ]
    extra = {"position_embedding": "pos_embed", "mask_token": "mask_token"}
    for ours, theirs in extra.items():
        if shape := shapes.get(f"params/{ours}"):
            full = (1,) * (3 - len(shape)) + shape
            rules.append(Rule(theirs, f"params/{ours}", shape=full))
    for n in range(model.depth):
        ours, index = ("blocks", (n,)) if model.scan else (f"blocks_{n}", ())
        theirs = f"blocks.{n}"
        rules += [
            *table.norm(f"{theirs}.norm1", f"{ours}/norm1", index),
            *table.linear(
                f"{theirs}.attn.qkv", f"{ours}/attention/qkv", index, bias=False
            ),
            *table.linear(f"{theirs}.attn.proj", f"{ours}/attention/proj", index),
            *table.norm(f"{theirs}.norm2", f"{ours}/norm2", index),
            *table.linear(f"{theirs}.mlp.fc1", f"{ours}/mlp/fc1", index),
            *table.linear(f"{theirs}.mlp.fc2", f"{ours}/mlp/fc2", index),
        ]
    return rules + _position_rules(model, shapes)


def _position_rules(model: ViT, shapes: Mapping[str, tuple[int, ...]]) -> list[Rule]:
    """Rules of the bias tables: the keypoint layer, or one set of tables per block."""
    options = model.position_options or {}
    if model.position in ("none", "absolute", "absolute_drawn"):
        return []
    if model.position != "irpe" and options.get("scale_bias", PositionBias.scale_bias):
        raise ValueError(
            "import_weights: official weights add their bias undivided; got a model "
            "with scale_bias=True; set position_options['scale_bias'] to False."
        )
    if model.uses_keypoints:
        if options.get("hidden_dim"):
            return [
                *table.linear("keypoint_linear.0", "bias_tables/hidden"),
                *table.norm("keypoint_linear.2", "bias_tables/norm"),
                *_keypoint_linear(
                    "keypoint_linear.3", "params/bias_tables/out", shapes
                ),
            ]
        return _keypoint_linear("keypoint_linear", "params/bias_tables", shapes)
    if not options.get("per_layer", True):
        raise ValueError(
            "import_weights: official RPE and iRPE tables are per block; got a model "
            "with per_layer=False; set position_options['per_layer'] to True."
        )
    return _block_tables(model, shapes)


def _keypoint_linear(
    source: str, target: str, shapes: Mapping[str, tuple[int, ...]]
) -> list[Rule]:
    """[depth * heads * buckets, inputs] -> [inputs, depth, heads, buckets]."""
    inputs, *outputs = shapes[f"{target}/kernel"]
    size = int(np.prod(outputs))
    return [
        Rule(f"{source}.weight", f"{target}/kernel", (1, 0), shape=(size, inputs)),
        Rule(f"{source}.bias", f"{target}/bias", shape=(size,)),
    ]


def _block_tables(model: ViT, shapes: Mapping[str, tuple[int, ...]]) -> list[Rule]:
    """RPE and iRPE: per block, for `cross` rows and columns side by side in ours."""
    options = model.position_options or {}
    method = options.get("method", PositionBias.method)
    ratio = options.get("ratio", PositionBias.ratio)
    parts, start = [], 0
    for buckets in compute_buckets(model.grid, method, ratio):
        parts.append(slice(start, start + buckets.num_buckets))
        start += buckets.num_buckets
    infixes = ("rp_rows.", "rp_cols.") if method == "cross" else ("",)
    names = {  # ours -> official module, its array
        "table": ("rpe_k", "lookup_table_bias"),
        "table_q": ("rpe_q", "lookup_table_weight"),
        "table_k": ("rpe_k", "lookup_table_weight"),
        "table_v": ("rpe_v", "lookup_table_weight"),
    }
    rules = []
    for ours, (module, array) in names.items():
        target = f"params/bias_tables/{ours}"
        if target not in shapes:
            continue
        for layer in range(model.depth):
            for infix, part in zip(infixes, parts, strict=True):
                source = f"blocks.{layer}.attn.{module}.{infix}{array}"
                # Buckets are the last axis, in the tables of values the one before.
                index = (layer, Ellipsis, part)
                if ours == "table_v":
                    index = (*index, slice(None))
                rules.append(Rule(source, target, index=index))
    return rules
