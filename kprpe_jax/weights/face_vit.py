"""Official weights in and out of the transformers of Face-ViT."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kprpe_jax.backbones.arcface_resnet import ArcFaceResNet
from kprpe_jax.matching.patch_encoder import PairEncoder, PatchWindows
from kprpe_jax.matching.two_image import OneImage, SameOrNot, TwoLinear
from kprpe_jax.weights import patch_backbones
from kprpe_jax.weights import rules as table
from kprpe_jax.weights.rules import Rule
from kprpe_jax.weights.state_dict import load_state_dict

FaceViT = OneImage | SameOrNot | TwoLinear
CLASSES = ("ViT_face", "ViTs_face", "Hybrid_ViT", "ViT_face_model")
_CNN, _CENTERS, _EMBED = "face_model.", "loss.weight", "patch_to_embedding.weight"


class FaceViTWeights(NamedTuple):
    """What an official checkpoint holds.

    Attributes:
      variables: of the transformer, float32 NumPy arrays.
      cnn: of `ArcFaceResNet`; None where the checkpoint has no CNN.
      centers: float32 [classes, D], of the margin loss; None where there are none.
    """

    variables: dict[str, Any]
    cnn: dict[str, Any] | None
    centers: np.ndarray | None


def face_vit_from_official(name: str, constructor: Mapping[str, Any]) -> FaceViT:
    """The network that computes what the official class computes in evaluation.

    Its dropout inside the blocks is not ours, that on the tokens is.

    Args:
      name: of the official class, one of CLASSES.
      constructor: its keyword arguments.
    Raises: ValueError: another class, or a variant that its own code cannot run.
    """
    if name not in CLASSES:
        raise ValueError(
            f"face_vit_from_official: unknown class {name!r}; use one of {CLASSES}."
        )
    args = dict(constructor)
    refused = [key for key in ("remove_sep", "remove_pos") if args.get(key)]
    if refused:
        raise ValueError(
            f"face_vit_from_official: no published network has {refused[0]}; got True; "
            "leave it out."
        )
    fields = dict(
        depth=args["depth"],
        num_heads=args["heads"],
        mlp_dim=args["mlp_dim"],
        width=args["dim"],
        attention="residual",
        logit_scale="width",
        dropout_rate=args.get("emb_dropout", 0.0),
    )
    if name.endswith("_face"):  # without CNN; trained on 0..255
        windows = PatchWindows(args["patch_size"], args["patch_size"], 0, 127.5, 127.5)
        if name == "ViTs_face":
            windows = windows._replace(size=args["ac_patch_size"], padding=args["pad"])
        fields |= dict(windows=windows, attention="norm_residual")
    elif args.get("no_face_model"):
        size, stride, padding = (
            args[k] for k in ("ac_patch_size", "patch_size", "pad")
        )
        fields |= dict(windows=PatchWindows(size, stride, padding))
    if "windows" in fields:
        size, stride, padding, *_ = fields["windows"]
        side = (args["image_size"] + 2 * padding - size) // stride + 1
        fields |= dict(num_patches=side**2)
    encoder = PairEncoder(**fields)
    if name != "ViT_face_model":
        return OneImage(encoder)
    if args.get("use_cls"):
        return SameOrNot(encoder)
    return TwoLinear(
        encoder, args["out_dim"], "batch", shared_head=bool(args.get("singleMLP"))
    )


def import_weights(
    model: FaceViT, source: str | Path | Mapping[str, Any]
) -> FaceViTWeights:
    """Official weights as variables of our networks.

    Left out, because the official code never uses them: the norm before attention in
    the hybrids and the positions of a second image in H1.

    Args:
      model: with the official options, as `face_vit_from_official` sets them.
      source: as `load_state_dict` takes it.
    Raises: ValueError: lists every missing, surplus and misshapen name; or the model's
      options are not those that official weights are made for.
    """
    plan = _plan(model)
    arrays = load_state_dict(source)
    cnn = {k.removeprefix(_CNN): v for k, v in arrays.items() if k.startswith(_CNN)}
    centers = arrays.get(_CENTERS)
    unused = [] if model.encoder.attention != "residual" else [
        f"{_layer(index)}.0.fn.norm." for index in range(model.encoder.depth)
    ]  # fmt: skip
    arrays = {
        name: array
        for name, array in arrays.items()
        if not name.startswith((_CNN, _CENTERS, *unused))
    }
    positions = arrays.get("pos_embedding")
    if isinstance(model, OneImage) and positions is not None and positions.ndim == 3:
        arrays["pos_embedding"] = positions[:, : model.encoder.num_patches + 1]
    if model.encoder.windows is not None and _EMBED in arrays:
        arrays[_EMBED] = _unfold(arrays[_EMBED], model.encoder)
    variables = table.import_state_dict(arrays, **plan)
    cnn = patch_backbones.import_weights(ArcFaceResNet(), cnn) if cnn else None
    return FaceViTWeights(variables, cnn, centers)


def export_weights(
    model: FaceViT, variables: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Variables of the transformer, or gradients, under their official names."""
    arrays = table.export_state_dict(variables, _plan(model)["rules"])
    if _EMBED in arrays:
        arrays[_EMBED] = arrays[_EMBED].reshape(len(arrays[_EMBED]), -1)
    return arrays


def _plan(model: FaceViT) -> dict[str, Any]:
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
            f"import_weights: official weights are made for {official}; got {got}; "
            "make the model with face_vit_from_official."
        )
    images = jnp.zeros((1, encoder.num_patches, encoder.width))
    if encoder.windows is not None:
        size, stride, padding, *_ = encoder.windows
        side = (round(encoder.num_patches**0.5) - 1) * stride + size - 2 * padding
        images = jnp.zeros((1, side, side, 3))
    count = 1 if isinstance(model, OneImage) else 2
    shapes = table.flat_shapes(
        jax.eval_shape(model.init, jax.random.key(0), *[images] * count)
    )
    network = f"this {type(model).__name__}"
    return dict(rules=_rules(model, shapes), shapes=shapes, network=network)


def _rules(model: FaceViT, shapes: Mapping[str, tuple[int, ...]]) -> list[Rule]:
    rules = []
    names = {
        "cls_token": "cls_token",
        "sep": "sep_token",
        "pos_embedding": "position_embedding",
    }
    for theirs, ours in names.items():
        target = f"params/encoder/{ours}"
        if shape := shapes.get(target):
            full = (1,) * (3 - len(shape)) + shape
            rules.append(Rule(theirs, target, shape=full))
    if model.encoder.windows is not None:
        target = "params/encoder/patch_embed"
        axes = (1, 2, 3, 0) if _rows_first(model.encoder) else (2, 3, 1, 0)
        rules.append(Rule(_EMBED, f"{target}/kernel", axes))
        rules.append(Rule("patch_to_embedding.bias", f"{target}/bias"))
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


def _rows_first(encoder: PairEncoder) -> bool:
    """Windows are flattened row, column, channel where they do not overlap."""
    return encoder.windows.size == encoder.windows.stride


def _unfold(weights: np.ndarray, encoder: PairEncoder) -> np.ndarray:
    """[C, inputs] with the inputs in the order in which windows are flattened."""
    size = encoder.windows.size
    if weights.shape != (encoder.width, 3 * size**2):
        return weights  # the state dict is checked as a whole
    inputs = (size, size, 3) if _rows_first(encoder) else (3, size, size)
    return weights.reshape(encoder.width, *inputs)
