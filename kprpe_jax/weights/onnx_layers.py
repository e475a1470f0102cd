"""Layers of an ONNX graph: a batch norm that was folded into its convolution or not.

Exporters keep few names and fold batch norms into convolutions. A folded norm becomes
one that changes nothing but adds the bias.
"""

from typing import NamedTuple

import numpy as np

from kprpe_jax.weights.onnx_graph import Node, OnnxGraph

EPSILON = 1e-5  # of the norms of all networks that are read
Arrays = dict[str, np.ndarray]


class Conv(NamedTuple):
    """A convolution and its norm, by official names without the layer's.

    Attributes:
      kernel: [out, in / groups, h, w].
      norm: weight, bias, running_mean, running_var.
      stride, padding: in both directions.
      groups: of channels.
    """

    kernel: np.ndarray
    norm: Arrays
    stride: int
    padding: int
    groups: int


class LayerWalk:
    """Takes operations apart, one layer at a time, towards the image."""

    def __init__(self, graph: OnnxGraph):
        self.graph = graph
        self._taken: set[int] = set()

    def take(self, value: str, *ops: str) -> Node:
        """The operation that makes a value, which must be one of these and new."""
        node = self.graph.maker(value)
        if node.op not in ops or id(node) in self._taken:
            raise ValueError(
                f"{node.op or 'the image'} stands where {' or '.join(ops)} should be; "
                "only iResNets and arcface_torch's MobileFaceNet are read, without "
                "steps of preparation"
            )
        self._taken.add(id(node))
        return node

    def op(self, value: str) -> str:
        """The operation that makes a value."""
        return self.graph.maker(value).op

    def norm(self, value: str) -> tuple[Arrays | None, str]:
        """A batch norm and what it reads; None where there is none."""
        if self.op(value) != "BatchNormalization":
            return None, value
        node = self.take(value, "BatchNormalization")
        names = ("weight", "bias", "running_mean", "running_var")
        scale, bias, mean, var = (
            np.float32(self.graph.array(x)).reshape(-1) for x in node.inputs[1:5]
        )
        var = var + np.float32(node.attributes.get("epsilon", 1e-5) - EPSILON)
        return dict(zip(names, (scale, bias, mean, var), strict=True)), node.inputs[0]

    def linear(self, value: str) -> tuple[np.ndarray, np.ndarray | None, str]:
        """A linear layer: kernel [out, in], its bias or None, and what it reads."""
        if self.op(value) == "Gemm":
            node = self.take(value, "Gemm")
            kernel, told = self.graph.array(node.inputs[1]), node.attributes
            plain = told.get("alpha", 1) == told.get("beta", 1) == 1
            if not plain or told.get("transA", 0):
                raise ValueError("its linear layer is scaled or turned")
            kernel = kernel if told.get("transB", 0) else kernel.T
            bias = self.graph.array(node.inputs[2]) if len(node.inputs) > 2 else None
            return kernel, bias, node.inputs[0]
        bias = None
        if self.op(value) == "Add":
            node = self.take(value, "Add")
            values = sorted(node.inputs, key=lambda x: self.op(x) == "MatMul")
            bias, value = self.graph.array(values[0]).reshape(-1), values[1]
        node = self.take(value, "Gemm", "MatMul")
        return self.graph.array(node.inputs[1]).T, bias, node.inputs[0]

    def flat(self, value: str) -> str:
        """What is flattened to a vector."""
        return self.take(value, "Flatten", "Reshape").inputs[0]

    def slope(self, value: str) -> tuple[np.ndarray, str]:
        """The slopes of a PReLU [C], and what it reads."""
        node = self.take(value, "PRelu")
        return self.graph.array(node.inputs[1]).reshape(-1), node.inputs[0]

    def conv(self, value: str) -> tuple[Conv, str]:
        """A convolution, its norm or the bias of a folded one, and what it reads."""
        norm, value = self.norm(value)
        node = self.take(value, "Conv")
        kernel, told = self.graph.array(node.inputs[1]), node.attributes
        bias = self.graph.array(node.inputs[2]) if len(node.inputs) > 2 else None
        if kernel.ndim != 4 or set(told.get("dilations", (1,))) != {1}:
            raise ValueError("a convolution is dilated, or none of images")
        strides, pads = told.get("strides", (1, 1)), told.get("pads", (0, 0, 0, 0))
        if len({*strides}) != 1 or len({*pads}) != 1 or told.get("auto_pad") not in (
            None, b"NOTSET",
        ):  # fmt: skip
            raise ValueError("a convolution has uneven strides or padding")
        if norm is None and bias is None:
            bias = np.zeros(len(kernel), np.float32)
        norm = add_bias(norm, bias)
        found = Conv(kernel, norm, strides[0], pads[0], told.get("group", 1))
        return found, node.inputs[0]

    def is_last_conv(self, value: str) -> bool:
        """Whether a grouped convolution, with a norm or not, makes a value."""
        node = self.graph.maker(value)
        if node.op == "BatchNormalization":
            node = self.graph.maker(node.inputs[0])
        return node.op == "Conv" and node.attributes.get("group", 1) > 1

    def end(self, value: str) -> None:
        """Check that a value is the image."""
        if self.graph.resolve(value) != self.graph.input:
            self.take(value, "the image")


def add_bias(norm: Arrays | None, bias: np.ndarray | None) -> Arrays:
    """A norm after a bias as one norm; without a norm, one that adds the bias."""
    if bias is None and norm is not None:
        return norm
    bias = np.float32(bias).reshape(-1)
    if norm is not None:
        return {**norm, "running_mean": norm["running_mean"] - bias}
    one, zero = np.ones_like(bias), np.zeros_like(bias)
    var = np.full_like(bias, 1 - EPSILON)
    return dict(weight=one, bias=bias, running_mean=zero, running_var=var)


def identity_norm(count: int) -> Arrays:
    """A norm that changes nothing."""
    return add_bias(None, np.zeros(count, np.float32))
