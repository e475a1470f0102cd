"""The weights of an ONNX graph under the official PyTorch names of its network.

Names in such files are often numbers, so the graph is walked from its embedding back to
its image, and every operation must be the one that the network has there.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from kprpe_jax.weights.iresnet import BODY_NAMES, LAYER_NAMES, IResNetNames
from kprpe_jax.weights.onnx_graph import read_onnx
from kprpe_jax.weights.onnx_layers import (
    EPSILON,
    Arrays,
    Conv,
    LayerWalk,
    add_bias,
    identity_norm,
)


def read_onnx_weights(path: Path) -> Arrays:
    """Weights of an iResNet or of arcface_torch's MobileFaceNet.

    Args:
      path: of an ONNX file: InsightFace's, or what PyTorch exports.
    Returns: arrays by official PyTorch names.
    Raises: ValueError: as `read_onnx`; a graph of another network.
    """
    try:
        return _walk_graph(LayerWalk(read_onnx(path)))
    except (TypeError, AttributeError, IndexError, OverflowError) as error:
        raise ValueError("its graph makes no sense") from error


def _walk_graph(walk: LayerWalk) -> Arrays:
    """The weights of either network, from the embedding on."""
    head_norm, value = walk.norm(walk.graph.output)
    kernel, bias, value = walk.linear(value)
    if bias is None:
        bias = np.zeros(len(kernel), np.float32)
    value = walk.flat(value)
    if walk.is_last_conv(value):
        return _mobilefacenet(walk, value, kernel, add_bias(head_norm, bias))
    return _iresnet(walk, value, kernel, bias, head_norm)


def _named(layer: str, norm: Arrays) -> Arrays:
    return {f"{layer}.{name}": array for name, array in norm.items()}


class _Unit(NamedTuple):
    """A residual unit; `slope` of its PReLU, `shortcut` a Conv, "pool" or ""."""

    norm: Arrays
    conv1: Conv
    slope: np.ndarray
    conv2: Conv
    shortcut: Conv | str


def _expect(fits: bool, what: str) -> None:
    if not fits:
        raise ValueError(f"{what} is not that of an iResNet or MobileFaceNet")


def _is(conv: Conv, side: int, stride: int, padding: int, groups: int = 1) -> bool:
    return conv.kernel.shape[2:] == (side, side) and (
        (conv.stride, conv.padding, conv.groups) == (stride, padding, groups)
    )


def _shortcut(walk: LayerWalk, value: str) -> tuple[Conv | str, str]:
    """The shortcut of a unit, and what it reads."""
    if walk.op(value) in ("Conv", "BatchNormalization"):
        conv, source = walk.conv(value)
        _expect(_is(conv, 1, conv.stride, 0), "a shortcut")
        return conv, source
    if walk.op(value) == "MaxPool":
        node = walk.take(value, "MaxPool")
        told = node.attributes
        stride = told.get("strides", (1, 1))
        plain = told.get("kernel_shape") == (1, 1) and not any(told.get("pads", ()))
        _expect(plain and stride in ((1, 1), (2, 2)), "a shortcut")
        return "pool" if stride == (2, 2) else "", node.inputs[0]
    return "", value


def _unit(walk: LayerWalk, value: str) -> tuple[_Unit, str]:
    """The unit that makes a value, and what it reads."""
    node = walk.take(value, "Add")
    # The branch begins with a 3 x 3 convolution, a shortcut with none or 1 x 1.
    branch, other = sorted(node.inputs, key=lambda x: not _ends_in_square(walk, x))
    conv2, inner = walk.conv(branch)
    slope, inner = walk.slope(inner)
    conv1, inner = walk.conv(inner)
    norm, inner = walk.norm(inner)
    shortcut, other = _shortcut(walk, other)
    _expect(walk.graph.resolve(inner) == walk.graph.resolve(other), "a sum")
    _expect(_is(conv1, 3, 1, 1) and _is(conv2, 3, conv2.stride, 1), "a unit")
    norm = norm or identity_norm(conv1.kernel.shape[1])
    return _Unit(norm, conv1, slope, conv2, shortcut), inner


def _ends_in_square(walk: LayerWalk, value: str) -> bool:
    """Whether a convolution of 3 x 3, with a norm or not, makes a value."""
    node = walk.graph.maker(value)
    if node.op == "BatchNormalization":
        node = walk.graph.maker(node.inputs[0])
    return node.op == "Conv" and walk.graph.array(node.inputs[1]).shape[2:] == (3, 3)


def _iresnet(
    walk: LayerWalk,
    value: str,
    kernel: np.ndarray,
    bias: np.ndarray,
    head_norm: Arrays | None,
) -> Arrays:
    """The weights of an iResNet, from what its last linear layer reads on."""
    norm, value = walk.norm(value)
    units = []
    while walk.op(value) == "Add":
        unit, value = _unit(walk, value)
        units.insert(0, unit)
    slope, value = walk.slope(value)
    stem, value = walk.conv(value)
    walk.end(value)
    _expect(bool(units) and _is(stem, 3, 1, 1), "the graph")
    names = BODY_NAMES if units[0].shortcut == "pool" else LAYER_NAMES
    arrays = {f"{names.stem[0]}.weight": stem.kernel, f"{names.stem[2]}.weight": slope}
    arrays |= _named(names.stem[1], stem.norm)
    arrays |= _named(names.norm, norm or identity_norm(len(units[-1].conv2.kernel)))
    arrays |= {f"{names.head}.weight": kernel, f"{names.head}.bias": bias}
    head_norm = head_norm or identity_norm(len(kernel))
    if names is BODY_NAMES:
        head_norm = _without_affine(head_norm)
    arrays |= _named(names.head_norm, head_norm)
    stage = index = 0
    for number, unit in enumerate(units):
        stage, index = (stage + 1, 0) if unit.conv2.stride == 2 else (stage, index + 1)
        _expect(unit.conv2.stride in (1, 2) and stage > 0, "a stride")
        layer = f"layer{stage}.{index}" if names is LAYER_NAMES else f"body.{number}"
        arrays |= _unit_arrays(unit, layer, names)
    return arrays


def _unit_arrays(unit: _Unit, layer: str, names: IResNetNames) -> Arrays:
    arrays = {f"{layer}.{names.act}.weight": unit.slope}
    norms = (unit.norm, unit.conv1.norm, unit.conv2.norm)
    for name, norm in zip(names.norms, norms, strict=True):
        arrays |= _named(f"{layer}.{name}", norm)
    for name, conv in zip(names.convs, (unit.conv1, unit.conv2), strict=True):
        arrays[f"{layer}.{name}.weight"] = conv.kernel
    if isinstance(unit.shortcut, Conv):
        _expect(unit.shortcut.stride == unit.conv2.stride, "a shortcut")
        arrays[f"{layer}.{names.shortcut}.0.weight"] = unit.shortcut.kernel
        arrays |= _named(f"{layer}.{names.shortcut}.1", unit.shortcut.norm)
    else:
        _expect((unit.conv2.stride == 2) == (unit.shortcut == "pool"), "a shortcut")
    return arrays


def _without_affine(norm: Arrays) -> Arrays:
    """The same norm without scale and bias, whose scale is positive."""
    scale, bias = norm["weight"], norm["bias"]
    mean, var = norm["running_mean"], norm["running_var"]
    if (scale != 1).any() or bias.any():
        _expect(bool((scale > 0).all()), "the last norm")
        std = np.sqrt(np.float64(var) + EPSILON)
        mean = np.float32(mean - bias * std / scale)
        var = np.float32((std / scale) ** 2 - EPSILON)
    return {"running_mean": mean, "running_var": var}


def _mobilefacenet(
    walk: LayerWalk, value: str, kernel: np.ndarray, head_norm: Arrays
) -> Arrays:
    """The weights of arcface_torch's MobileFaceNet, from its global convolution on."""
    pool, value = walk.conv(value)
    _expect(_is(pool, pool.kernel.shape[2], 1, 0, len(pool.kernel)), "the head")
    arrays = _conv_arrays("features.layers.0", pool)
    arrays |= {"features.layers.2.weight": kernel}
    arrays |= _named("features.layers.3", head_norm)
    last, value = _activated(walk, value, "conv_sep", 1)
    arrays |= last
    blocks = []
    while walk.op(value) != "PRelu":
        summed = walk.op(value) == "Add"
        other = None
        if summed:
            node = walk.take(value, "Add")
            # A block's own end is a convolution; so may be what the first one reads.
            value, other = _branch_first(walk, *node.inputs)
        block, value = _block(walk, value, stride=1 if summed else 2)
        resolve = walk.graph.resolve
        _expect(not summed or resolve(value) == resolve(other), "a sum")
        blocks.insert(0, (summed, block))
    second, value = _activated(walk, value, "layers.1", 3)
    first, value = _activated(walk, value, "layers.0", 3, stride=2)
    walk.end(value)
    arrays |= first | second
    place, index = 1, 0
    previous = False
    for summed, block in blocks:
        index = index + 1 if summed and previous else 0
        place += not (summed and previous)
        previous = summed
        layer = f"layers.{place}.layers.{index}" if summed else f"layers.{place}"
        arrays |= {f"{layer}.{name}": array for name, array in block.items()}
    return arrays


def _branch_first(walk: LayerWalk, *values: str) -> list[str]:
    """The operands of a sum, first the one that a block computes from the other."""
    start = {walk.graph.resolve(x) for x in values}

    def is_branch(value: str) -> bool:
        for _ in range(9):  # three layers of convolution, norm and PReLU
            node = walk.graph.maker(value)
            if not node.inputs:
                return False
            value = node.inputs[0]
            if walk.graph.resolve(value) in start:
                return True
        return False

    return sorted(values, key=lambda x: not is_branch(x))


def _activated(
    walk: LayerWalk,
    value: str,
    layer: str,
    side: int,
    *,
    stride: int = 1,
    depthwise: bool = False,
) -> tuple[Arrays, str]:
    """A convolution of this geometry with its PReLU, and what it reads."""
    slope, value = walk.slope(value)
    conv, value = walk.conv(value)
    groups = len(conv.kernel) if depthwise else conv.groups
    _expect(_is(conv, side, stride, side // 2, groups), layer)
    return {**_conv_arrays(layer, conv), f"{layer}.layers.2.weight": slope}, value


def _block(walk: LayerWalk, value: str, stride: int) -> tuple[Arrays, str]:
    """The inverted residual that makes a value, and what it reads."""
    project, value = walk.conv(value)
    _expect(_is(project, 1, 1, 0), "a block")
    depthwise, value = _activated(
        walk, value, "layers.1", 3, stride=stride, depthwise=True
    )
    expand, value = _activated(walk, value, "layers.0", 1)
    return {**expand, **depthwise, **_conv_arrays("layers.2", project)}, value


def _conv_arrays(layer: str, conv: Conv) -> Arrays:
    return {
        f"{layer}.layers.0.weight": conv.kernel,
        **_named(f"{layer}.layers.1", conv.norm),
    }
