"""Read an ONNX file as data: its numbers, and which operation made each value."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

# What leaves every number where it is.
_SAME = ("Identity", "Dropout", "Cast")
_SHOWN = 60  # characters of a name in an error


class Node(NamedTuple):
    """An operation of the graph.

    Attributes:
      op: its type, such as "Conv".
      inputs: names of values; "" = left out.
      attributes: by name.
    """

    op: str
    inputs: tuple[str, ...]
    attributes: Mapping[str, Any]


class OnnxGraph:
    """A graph that is walked from its output to its input; nothing is computed.

    Attributes:
      input, output: names of values.
    """

    def __init__(self, model: Any):
        """Index a graph.

        Args:
          model: `onnx.ModelProto`.
        Raises: ValueError: numbers in other files; not one input and one output.
        """
        graph = model.graph
        self._tensors = {x.name: x for x in graph.initializer}
        outputs = [x.name for x in graph.output]
        inputs = [x.name for x in graph.input if x.name not in self._tensors]
        if len(inputs) != 1 or len(outputs) != 1:
            raise ValueError(
                f"it has {len(inputs)} inputs and {len(outputs)} outputs, and a "
                "recognizer's graph has one image and one embedding"
            )
        (self.input,), (self.output,) = inputs, outputs
        self._nodes: dict[str, Node] = {}
        for node in graph.node:
            attributes = {x.name: _value(x) for x in node.attribute}
            found = Node(node.op_type, tuple(node.input), attributes)
            for name in node.output[:1]:  # a norm's other outputs are statistics
                if name in self._nodes:
                    raise ValueError(f"two operations make {name[:_SHOWN]}")
                self._nodes[name] = found

    def resolve(self, value: str) -> str:
        """The value that a value equals, before all that leaves it as it is."""
        for _ in range(len(self._nodes) + 1):
            node = self._nodes.get(value)
            if node is None or node.op not in _SAME or not node.inputs:
                return value
            value = node.inputs[0]
        raise ValueError("its operations run in a circle")

    def maker(self, value: str) -> Node:
        """The operation that makes a value; empty for the image and for numbers."""
        return self._nodes.get(self.resolve(value), Node("", (), {}))

    def array(self, value: str) -> np.ndarray:
        """The numbers of a value that no image changes.

        Those that are only reshaped, as exporters do to the slopes of a PReLU, keep the
        shape in which they are stored.

        Raises: ValueError: it depends on the image, lies in another file, or is
          damaged.
        """
        value = self.resolve(value)
        node = self._nodes.get(value, Node("", (), {}))
        if node.op in ("Transpose", "Unsqueeze", "Reshape"):
            value = self.resolve(node.inputs[0])
        tensor = self._tensors.get(value)
        if node.op == "Constant":
            tensor = node.attributes.get("value")
        if tensor is None:
            raise ValueError(f"{value[:_SHOWN]!r} is not stored as numbers")
        found = _numbers(tensor)
        turned = node.op == "Transpose"
        return found.transpose(node.attributes.get("perm")) if turned else found


def read_onnx(path: Path) -> OnnxGraph:
    """Read a file; neither its operations nor what it refers to are run or opened.

    Args:
      path: of an ONNX file that holds its numbers itself.
    Raises: ValueError: the `onnx` package is missing; another kind of file, a cut one;
      as `OnnxGraph`.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise ValueError(
            "reading it needs the package onnx: install the `onnx` extra (pip install "
            "'.[onnx]')"
        ) from error
    model = onnx.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except (DecodeError, OSError, MemoryError) as error:
        raise ValueError(f"it is no whole ONNX file ({error})") from error
    if not model.graph.node:
        raise ValueError("it holds no graph")
    return OnnxGraph(model)


def _value(attribute: Any) -> Any:
    """The value of an attribute; None of those that recognizers do not have."""
    import onnx

    kinds = onnx.AttributeProto
    if attribute.type == kinds.INTS:
        return tuple(attribute.ints)
    fields = {kinds.INT: "i", kinds.FLOAT: "f", kinds.STRING: "s", kinds.TENSOR: "t"}
    field = fields.get(attribute.type)
    return getattr(attribute, field) if field else None


def _numbers(tensor: Any) -> np.ndarray:
    """The numbers of a stored tensor, float.

    Raises: ValueError: in another file; other numbers than its shape says, or no float.
    """
    import onnx
    from onnx import numpy_helper

    name = tensor.name[:_SHOWN]
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        raise ValueError(
            f"the numbers of {name!r} are in another file; save the model as one file "
            "(onnx.save with save_as_external_data=False)"
        )
    kinds = onnx.TensorProto
    if tensor.data_type not in (
        kinds.FLOAT, kinds.FLOAT16, kinds.BFLOAT16, kinds.DOUBLE,
    ):  # fmt: skip
        raise ValueError(f"the numbers of {name!r} are no floating-point ones")
    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name!r} has other numbers than its shape says") from error
