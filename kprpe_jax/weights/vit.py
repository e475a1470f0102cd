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
    learned = {
        "pos_embed": "params/position_embedding",
        "mask_token": "params/mask_token",
    }
    rules = [
        *table.conv("patch_embed.proj", "patch_embed"),
        *table.norm("norm", "norm"),
        *table.embedding_head("feature", "head"),
        *table.learned_tokens(learned, shapes),
    ]
    for n in range(model.depth):
        ours, index = ("blocks", (n,)) if model.scan else (f"blocks_{n}", ())
        rules += table.transformer_block(f"blocks.{n}", ours, index)
    rules += _position_rules(model, shapes)
    return WeightLayout(rules, shapes, arrays, variant=model.position)


def _position_rules(model: ViT, shapes: Mapping[str, tuple[int, ...]]) -> list[Rule]:
    """Rules of the bias tables: the keypoint layer, or one set of tables per block."""
    options = model.position_options or {}
    if model.position in ("none", "absolute", "absolute_drawn"):
        return []
    if model.position != "irpe" and options.get("scale_bias", PositionBias.scale_bias):
        raise ValueError(
            "official weights add their bias undivided; got a model "
            "with scale_bias=True; set position_options['scale_bias'] to False."
        )
    if model.uses_keypoints:
        if options.get("hidden_dim"):
            return [
                *table.linear("keypoint_linear.0", "bias_tables/hidden"),
                *table.norm("keypoint_linear.2", "bias_tables/norm"),
                *table.table_layer("keypoint_linear.3", "bias_tables/out", shapes),
            ]
        return table.table_layer("keypoint_linear", "bias_tables", shapes)
    if not options.get("per_layer", True):
        raise ValueError(
            "official RPE and iRPE tables are per block; got a model "
            "with per_layer=False; set position_options['per_layer'] to True."
        )
    return _block_tables(model, shapes)


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
