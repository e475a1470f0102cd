"""Official vision transformers: which `ViT` computes what they compute."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from kprpe_jax.backbones.vit import ViT

_METHODS = {"euc": "euclidean", "quant": "quantized"}  # product, cross: as ours
# Defaults of the official constructors; None = must be given.
_CONSTRUCTOR = dict(
    img_size=None, patch_size=None, num_classes=None, embed_dim=None, depth=None,
    num_heads=None, mlp_ratio=4.0, drop_path_rate=0.0, mask_ratio=0.1,
    using_checkpoint=False, rpe_config=None, norm_layer="ln", qkv_bias=False,
    qk_scale=None, drop_rate=0.0, attn_drop_rate=0.0, in_channels=3, num_patches=None,
)  # fmt: skip
_FIXED = (
    "norm_layer", "qkv_bias", "qk_scale", "drop_rate", "attn_drop_rate", "in_channels",
    "num_patches",
)  # fmt: skip


def vit_from_official(constructor: Mapping[str, Any], **fields: Any) -> ViT:
    """ViT that computes what the official class computes with these arguments.

    `rpe_config` says which of the three official classes is meant. Our own defaults
    follow the paper; this one follows the code: the bias is added undivided and no
    gradient reaches the keypoints.

    Args:
      constructor: keyword arguments of the official class.
      fields: further fields of ViT, such as `scan`, `remat`, `dtype`.
    Raises: ValueError: an argument that is missing, unknown or of a variant that the
      released networks do not use.
    """
    unknown = [name for name in constructor if name not in _CONSTRUCTOR]
    args = {**_CONSTRUCTOR, **constructor}
    absent = [name for name in list(_CONSTRUCTOR)[:6] if args[name] is None]
    if unknown or absent:
        raise ValueError(
            f"vit_from_official: constructor arguments missing: {absent}, unknown: "
            f"{unknown}; give those of the official class."
        )
    for name in _FIXED:
        if args[name] != _CONSTRUCTOR[name]:
            raise ValueError(
                f"vit_from_official: {name} must be {_CONSTRUCTOR[name]!r}, as in all "
                f"released networks; got {args[name]!r}."
            )
    height, width = np.broadcast_to(args["img_size"], 2).tolist()
    mapped = dict(
        image_size=(height, width),
        patch_size=args["patch_size"],
        width=args["embed_dim"],
        depth=args["depth"],
        num_heads=args["num_heads"],
        mlp_ratio=args["mlp_ratio"],
        output_dim=args["num_classes"],
        drop_path_rate=args["drop_path_rate"],
        # The official code hides a tenth of the tokens whatever the ratio says.
        mask_ratio=0.1 if args["mask_ratio"] else 0.0,
        remat=args["using_checkpoint"],
    )
    return ViT(**{**mapped, **_position(args["rpe_config"]), **fields})


def _position(rpe: Mapping[str, Any] | None) -> dict[str, Any]:
    """ViT fields of an official `rpe_config`."""
    if rpe is None:
        return dict(position="absolute")
    options = dict(
        method=_METHODS.get(rpe["method"], rpe["method"]),
        ratio=rpe["ratio"],
        scale_bias=False,
    )
    if rpe["name"].startswith("KPRPE"):
        words = rpe["ctx_type"].removeprefix("rel_").split("_")
        flags = set(words[1:])
        if words[0] != "keypoint" or flags - {"splithead", "unshared", "v2"}:
            raise ValueError(
                f"vit_from_official: unknown ctx_type {rpe['ctx_type']!r}; use "
                f"[rel_]keypoint[_splithead][_unshared][_v2]."
            )
        form = "kprpe_multihead" if "splithead" in flags else "kprpe_relative"
        if not rpe["ctx_type"].startswith("rel_"):
            form = "kprpe_scalar"
        options |= dict(
            num_keypoints=rpe.get("num_keypoints", 5),
            per_layer="unshared" in flags,
            hidden_dim=256 if "v2" in flags else 0,
            stop_keypoint_gradient=True,
        )
        return dict(position=form, position_options=options)
    options |= dict(per_head=not rpe["shared_head"])
    if rpe["mode"] == "ctx":
        options |= dict(context=rpe["rpe_on"])
        return dict(position="irpe", position_options=options)
    if rpe["rpe_on"] != "k":
        raise ValueError(
            f"vit_from_official: rpe_config mode {rpe['mode']!r} is supported on keys "
            f"(rpe_on 'k'); got rpe_on {rpe['rpe_on']!r}."
        )
    return dict(position="rpe", position_options=options)
