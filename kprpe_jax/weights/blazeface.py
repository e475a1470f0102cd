"""Rules of BlazeFace and FaceMesh, by the names in MediaPipe's .tflite files."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace

import jax.numpy as jnp
import numpy as np

from kprpe_jax.detection.blazeface import BlazeFaceFull, BlazeFaceShort
from kprpe_jax.detection.face_mesh import FaceMesh
from kprpe_jax.weights import rules as table
from kprpe_jax.weights.rules import Rule, WeightLayout


def blazeface_layout(
    model: BlazeFaceShort | BlazeFaceFull, arrays: Mapping[str, np.ndarray]
) -> WeightLayout:
    """Layout of a detector; its layers are numbered in their order."""
    convs, depthwise = _numbered("conv2d"), _numbered("depthwise_conv2d")
    rules = _conv(next(convs), "stem")
    if isinstance(model, BlazeFaceShort):
        for number in range(16):
            rules += _unit(convs, depthwise, f"unit{number}", 1)
        heads = {"logits": "classificator_{}", "offsets": "regressor_{}"}
        sides = (8, 16)
    else:
        for number in range(15):
            rules += _unit(convs, depthwise, f"unit{number}", 2)
        for level, count in enumerate((2, 2, 1)):
            for name in ("coarse", "fine"):
                rules += _conv(next(convs), f"{name}{level}")
            for index in range(count):
                rules += _unit(convs, depthwise, f"up{level}_{index}", 2)
        heads = {"logits": "classifier_face_{}", "offsets": "regressor_face_{}"}
        sides = (4,)
    for ours, theirs in heads.items():
        for number, side in enumerate(sides):
            rules += _conv(theirs.format(side), f"{ours}{number}")
    return _layout(model, rules, arrays)


def face_mesh_layout(model: FaceMesh, arrays: Mapping[str, np.ndarray]) -> WeightLayout:
    """Layout of FaceMesh; the numbers of its second head begin where others end."""
    rules = _conv("conv2d", "stem") + _slope("p_re_lu", "stem_act")
    for number in range(14):
        rules += _mesh_unit(number, number + 1, number + 1, f"unit{number}")
    for name, (depthwise, conv, slope, units) in {
        "points": (14, 15, 15, 3),
        "logits": (22, 27, 25, 1),
    }.items():
        for index in range(units):
            numbers = depthwise + index, conv + index, slope + index
            rules += _mesh_unit(*numbers, f"{name}_unit{index}")
        depthwise, conv, slope = depthwise + units, conv + units, slope + units
        rules += _conv(f"conv2d_{conv}", f"{name}_conv")
        rules += _slope(f"p_re_lu_{slope}", f"{name}_act")
        rules += _mesh_unit(depthwise, conv + 1, slope + 1, f"{name}_last")
        rules += _conv(f"conv2d_{conv + 2}", name)
    return _layout(model, rules, arrays)


def _layout(
    model: BlazeFaceShort | BlazeFaceFull | FaceMesh,
    rules: list[Rule],
    arrays: Mapping[str, np.ndarray],
) -> WeightLayout:
    shapes = table.variable_shapes(model, jnp.zeros((1, *model.image_size, 3)))
    rules = [
        replace(rule, shape=(1, 1, *shapes[rule.target]))
        if rule.target.endswith("slope")
        else rule
        for rule in rules
    ]
    return WeightLayout(rules, shapes, arrays)


def _numbered(name: str) -> Iterator[str]:
    """conv2d, conv2d_1, conv2d_2, ..."""
    return (f"{name}_{n}" if n else name for n in itertools.count())


def _conv(source: str, target: str) -> list[Rule]:
    """Convolution: [out, h, w, in] -> kernel [h, w, in, out], and its bias."""
    return [
        Rule(f"{source}/Kernel", f"params/{target}/kernel", (1, 2, 3, 0)),
        Rule(f"{source}/Bias", f"params/{target}/bias"),
    ]


def _depthwise(source: str, target: str) -> list[Rule]:
    """Depthwise one: [1, h, w, C] -> kernel [h, w, 1, C], and its bias."""
    return [
        Rule(f"{source}/Kernel", f"params/{target}/kernel", (1, 2, 0, 3)),
        Rule(f"{source}/Bias", f"params/{target}/bias"),
    ]


def _slope(source: str, target: str) -> list[Rule]:
    """PReLU: [1, 1, C] -> [C]; `_layout` adds the shape."""
    return [Rule(f"{source}/Alpha", f"params/{target}/slope")]


def _unit(
    convs: Iterator[str], depthwise: Iterator[str], target: str, pairs: int
) -> list[Rule]:
    """Pairs of a depthwise and a 1 x 1 convolution."""
    rules = []
    for number in range(pairs):
        rules += _depthwise(next(depthwise), f"{target}/depthwise{number}")
        rules += _conv(next(convs), f"{target}/pointwise{number}")
    return rules


def _mesh_unit(depthwise: int, conv: int, slope: int, target: str) -> list[Rule]:
    source = f"depthwise_conv2d_{depthwise}" if depthwise else "depthwise_conv2d"
    return [
        *_depthwise(source, f"{target}/depthwise0"),
        *_conv(f"conv2d_{conv}", f"{target}/pointwise0"),
        *_slope(f"p_re_lu_{slope}", f"{target}/act"),
    ]
