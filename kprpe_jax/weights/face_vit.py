"""Rules of the transformers of Face-ViT, and their checkpoints with CNN and centers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from kprpe_jax.backbones.arcface_resnet import ArcFaceResNet
from kprpe_jax.core.checks import check_option
from kprpe_jax.matching.patch_encoder import PairEncoder, PatchWindows
from kprpe_jax.matching.two_image import OneImage, SameOrNot, TwoLinear
from kprpe_jax.weights import rules as table
from kprpe_jax.weights.load import import_weights
from kprpe_jax.weights.rules import Rule, WeightLayout
from kprpe_jax.weights.state_dict import load_state_dict

FaceViT = OneImage | SameOrNot | TwoLinear
CLASSES = ("ViT_face", "ViTs_face", "Hybrid_ViT", "ViT_face_model")
NETWORKS = {"one_image": OneImage, "same_or_not": SameOrNot, "two_linear": TwoLinear}
_CNN, _CENTERS = "face_model.", "loss.weight"


class FaceViTWeights(NamedTuple):
    """Content of an official checkpoint.

    Attributes:
      variables: of the transformer, float32 NumPy arrays.
      cnn: of `ArcFaceResNet`; None where the checkpoint has no CNN.
      centers: float32 [classes, D], of the margin loss; None where there are none.
    """

    variables: dict[str, Any]
    cnn: dict[str, Any] | None
    centers: np.ndarray | None


def published_face_vit(
    network: str,
    *,
    windows: Sequence[float] | None = None,
    output_dim: int = 512,
    shared_head: bool = False,
    **encoder: Any,
) -> FaceViT:
    """Make a network with the options of the official code.

    Args:
      network: one of NETWORKS.
      windows: fields of `PatchWindows`: patches are learned from images; None = those
        of a CNN are given.
      output_dim, shared_head: of `TwoLinear`.
      encoder: further fields of `PairEncoder`, such as `depth`, `num_heads`.
    Raises: ValueError: another network.
    """
    check_option("published_face_vit", "network", network, NETWORKS)
    windows = None if windows is None else PatchWindows(*windows)
    pixels = network == "one_image" and windows is not None
    attention = "norm_residual" if pixels else "residual"
    fields = dict(attention=attention, logit_scale="width", windows=windows)
    made = PairEncoder(**fields | encoder)
    if network == "two_linear":
        return TwoLinear(made, output_dim, "batch", shared_head=shared_head)
    return NETWORKS[network](made)


def face_vit_from_official(name: str, constructor: Mapping[str, Any]) -> FaceViT:
    """Make the network that computes what the official class does in evaluation.

    Its dropout inside the blocks is not ours, that on the tokens is. With remove_sep
    the official forward pass ends with an error (it never joins the two images), so
    what stands here is what its parameters and its head are made for: [CLS], then the
    patches of both.

    Args:
      name: of the official class, one of CLASSES.
      constructor: its keyword arguments.
    Raises: ValueError: another class, or a variant that its own code cannot run.
    """
    check_option("face_vit_from_official", "class", name, CLASSES)
    args = dict(constructor)
    fields = dict(
        depth=args["depth"],
        num_heads=args["heads"],
        mlp_dim=args["mlp_dim"],
        width=args["dim"],
        dropout_rate=args.get("emb_dropout", 0.0),
        separator=not args.get("remove_sep"),
        positions=not args.get("remove_pos"),
    )
    if name.endswith("_face"):  # without CNN; trained on 0..255
        windows = PatchWindows(args["patch_size"], args["patch_size"], 0, 127.5, 127.5)
        if name == "ViTs_face":
            windows = windows._replace(size=args["ac_patch_size"], padding=args["pad"])
        fields |= dict(windows=windows)
    elif args.get("no_face_model"):
        size, stride, padding = (
            args[k] for k in ("ac_patch_size", "patch_size", "pad")
        )
        fields |= dict(windows=PatchWindows(size, stride, padding))
    if "windows" in fields:
        channels = args.get("channels", 3)
        fields["windows"] = fields["windows"]._replace(channels=channels)
        size, stride, padding, *_ = fields["windows"]
        side = (args["image_size"] + 2 * padding - size) // stride + 1
        fields |= dict(num_patches=side**2)
    if name != "ViT_face_model":
        return published_face_vit("one_image", **fields)
    if args.get("use_cls"):
        return published_face_vit("same_or_not", **fields)
    return published_face_vit(
        "two_linear",
        output_dim=args["out_dim"],
        shared_head=bool(args.get("singleMLP")),
        **fields,
    )


def import_checkpoint(
    model: FaceViT, source: str | Path | Mapping[str, Any]
) -> FaceViTWeights:
    """Read a whole official checkpoint: transformer, CNN and class centers.

    Args:
      model: from `published_face_vit`.
      source: as `load_state_dict` takes it.
    Raises: ValueError: as `import_weights`.
    """
    arrays = load_state_dict(source)
    cnn = {k.removeprefix(_CNN): v for k, v in arrays.items() if k.startswith(_CNN)}
    return FaceViTWeights(
        import_weights(model, arrays),
        import_weights(ArcFaceResNet(), cnn) if cnn else None,
        arrays.get(_CENTERS),
    )


def face_vit_layout(model: FaceViT, arrays: Mapping[str, np.ndarray]) -> WeightLayout:
    """Layout of the transformer, without CNN and class centers.

    Left out, too, because the official code never uses them: the norm before attention
    in the hybrids and the positions of a second image in H1.

    Raises: ValueError: options that no official weights are made for.
    """
    _check(model)
    encoder = model.encoder
    unused = [_CNN, _CENTERS]
    if encoder.attention == "residual":
        unused += [f"{_layer(index)}.0.fn.norm." for index in range(encoder.depth)]
    arrays = {k: v for k, v in arrays.items() if not k.startswith(tuple(unused))}
    positions = arrays.get("pos_embedding")
    if isinstance(model, OneImage) and positions is not None and positions.ndim == 3:
        arrays["pos_embedding"] = positions[:, : encoder.num_patches + 1]
    images = jnp.zeros((1, encoder.num_patches, encoder.width))
    if encoder.windows is not None:
        size, stride, padding, *_ = encoder.windows
        side = (round(encoder.num_patches**0.5) - 1) * stride + size - 2 * padding
        images = jnp.zeros((1, side, side, encoder.windows.channels))
    count = 1 if isinstance(model, OneImage) else 2
    shapes = table.variable_shapes(model, *[images] * count)
    return WeightLayout(_rules(model, shapes), shapes, arrays)


def _check(model: FaceViT) -> None:
    """Check that the options are those of the official code."""
    encoder = model.encoder
    pixels = isinstance(model, OneImage) and encoder.windows is not None
    official = dict(
        attention="norm_residual" if pixels else "residual", logit_scale="width"
    )
    got = {name: getattr(encoder, name) for name in official}
    if isinstance(model, TwoLinear):
        official["head_norm"], got["head_norm"] = "batch", model.head_norm
    if got != official:
        raise ValueError(
            f"official weights are made for {official}; got {got}; "
            "make the model with published_face_vit."
        )


def _rules(model: FaceViT, shapes: Mapping[str, tuple[int, ...]]) -> list[Rule]:
    learned = {
        "cls_token": "params/encoder/cls_token",
        "sep": "params/encoder/sep_token",
        "pos_embedding": "params/encoder/position_embedding",
    }
    rules = table.learned_tokens(learned, shapes)
    if model.encoder.windows is not None:
        rules += _window_rules(model)
    for index in range(model.encoder.depth):
        ours, theirs = f"encoder/layers_{index}", _layer(index)
        if model.encoder.attention != "residual":
            rules += table.norm(f"{theirs}.0.fn.norm", f"{ours}/norm1")
        attention = f"{theirs}.0.fn.fn"
        rules += [
            *table.linear(f"{attention}.to_qkv", f"{ours}/attention/qkv", bias=False),
            *table.linear(f"{attention}.to_out.0", f"{ours}/attention/proj"),
            *table.norm(f"{theirs}.1.fn.norm", f"{ours}/norm2"),
            *table.linear(f"{theirs}.1.fn.fn.net.0", f"{ours}/mlp/fc1"),
            *table.linear(f"{theirs}.1.fn.fn.net.3", f"{ours}/mlp/fc2"),
        ]
    if isinstance(model, TwoLinear):
        rules += table.norm("mlp_head.0", "loss_norm")
        for number in ("",) if model.shared_head else ("1", "2"):
            rules += table.linear(f"fc{number}", f"head{number}")
            rules += table.batch_norm(f"bn{number}", f"norm{number}")
        return rules
    rules += table.norm("mlp_head.0", "norm")
    return rules + (table.linear("fc", "head") if isinstance(model, SameOrNot) else [])


def _layer(index: int) -> str:
    return f"transformer.layers.{index}"


def _window_rules(model: FaceViT) -> list[Rule]:
    """The linear layer of the windows, [C, inputs].

    Inputs are flattened row, column, channel in `ViT_face`, whose windows lie side by
    side without padding, else channel, row, column.
    """
    encoder = model.encoder
    target = "params/encoder/patch_embed"
    width, size = encoder.width, encoder.windows.size
    channels = encoder.windows.channels
    split, axes = (width, channels, size, size), (2, 3, 1, 0)
    side_by_side = size == encoder.windows.stride and not encoder.windows.padding
    if isinstance(model, OneImage) and side_by_side:
        split, axes = (width, size, size, channels), (1, 2, 3, 0)
    source, shape = "patch_to_embedding", (width, channels * size**2)
    return [
        Rule(f"{source}.weight", f"{target}/kernel", axes, shape=shape, split=split),
        Rule(f"{source}.bias", f"{target}/bias"),
    ]
