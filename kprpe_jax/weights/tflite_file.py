"""Read the weights of a TensorFlow Lite model, as float32 arrays by their names.

The file is a flat buffer: tables of offsets. The tensors with stored values are taken
from its first graph; what the graph does is not read, and nothing is executed. Every
offset is checked before it is followed, and every count before it is used.
"""

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

_LARGEST = 1 << 26  # bytes; the published files have up to 2.6 million
_MOST_TENSORS, _MOST_AXES, _MOST_NAME = 10_000, 8, 256
_TYPES = {0: "<f4", 1: "<f2"}  # of the schema, those that are weights
# Places of the fields in their tables, by the schema of TensorFlow Lite 3.
_SUBGRAPHS, _BUFFERS = 2, 4  # of a model
_TENSORS = 0  # of a graph
_SHAPE, _TYPE, _BUFFER, _NAME = range(4)  # of a tensor
_DATA = 0  # of a buffer


def read_tflite_file(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read all weights of a model.

    Args:
      path: of the .tflite file.
    Returns: float32 arrays by the names of their tensors, shaped as there: kernels of
      convolutions [out, h, w, in], of depthwise ones [1, h, w, C]. Weights stored as
      float16 are widened; integers are left out.
    Raises: ValueError: another file, one that is cut or whose offsets lead out of it,
      or weights that are not finite.
    """
    try:
        size = os.path.getsize(path)
        if size > _LARGEST:
            raise ValueError(f"got {size >> 20} MB, which is too large")
        buffer = _FlatBuffer(Path(path).read_bytes())
        if buffer.data[4:8] != b"TFL3":
            raise ValueError("got another file")
        return _read_weights(buffer)
    except ValueError as error:
        raise ValueError(
            f"{path} must be a whole TensorFlow Lite model (.tflite); {error}."
        ) from error


class _FlatBuffer:
    """Tables, vectors and texts of a flat buffer; positions are in bytes."""

    def __init__(self, data: bytes):
        self.data = data

    def number(self, form: str, at: int) -> int:
        """An integer, by a form of `struct`."""
        if not 0 <= at <= len(self.data) - struct.calcsize(form):
            raise ValueError(f"an offset leads out of it, to byte {at}")
        return struct.unpack_from(form, self.data, at)[0]

    def field(self, table: int, place: int) -> int | None:
        """Where a field of a table is; None = it has its default."""
        fields = table - self.number("<i", table)
        if 4 + 2 * place >= self.number("<H", fields):
            return None
        offset = self.number("<H", fields + 4 + 2 * place)
        return table + offset if offset else None

    def follow(self, at: int) -> int:
        """The position that the offset at a position gives."""
        return at + self.number("<I", at)

    def vector(self, table: int, place: int, width: int, most: int) -> tuple[int, int]:
        """Position and count of a vector's elements of `width` bytes; 0 = none."""
        at = self.field(table, place)
        if at is None:
            return 0, 0
        at = self.follow(at)
        count, first = self.number("<I", at), at + 4
        if count > most:
            raise ValueError(f"byte {at} counts {count} entries, at most {most} may be")
        if first + count * width > len(self.data):
            raise ValueError(f"it ends early, at byte {len(self.data)}")
        return first, count

    def tables(self, table: int, place: int, most: int) -> Iterator[int]:
        """Positions of a vector's tables."""
        first, count = self.vector(table, place, 4, most)
        return (self.follow(first + 4 * i) for i in range(count))


def _read_weights(buffer: _FlatBuffer) -> dict[str, np.ndarray]:
    """The float tensors of the first graph that have values."""
    model = buffer.follow(0)
    stored = [
        buffer.vector(table, _DATA, 1, _LARGEST)
        for table in buffer.tables(model, _BUFFERS, _MOST_TENSORS)
    ]
    graphs = list(buffer.tables(model, _SUBGRAPHS, 1))
    if not graphs:
        raise ValueError("it holds no graph")
    arrays: dict[str, np.ndarray] = {}
    left = len(buffer.data)  # values may be shared, but no more of them than the file
    for tensor in buffer.tables(graphs[0], _TENSORS, _MOST_TENSORS):
        number, kind = (buffer.field(tensor, place) for place in (_BUFFER, _TYPE))
        number = 0 if number is None else buffer.number("<I", number)
        kind = 0 if kind is None else buffer.number("<b", kind)
        if number >= len(stored):
            raise ValueError(f"there is no buffer {number}")
        first, count = stored[number]
        if not count or kind not in _TYPES:
            continue
        left -= count
        if left < 0:
            raise ValueError("its tensors hold more than the file")
        name = _read_name(buffer, tensor)
        if name in arrays:
            raise ValueError(f"two tensors are named {name!a}")
        values = np.frombuffer(buffer.data[first : first + count], np.uint8)
        arrays[name] = _shaped(values, _TYPES[kind], _read_shape(buffer, tensor), name)
    if not arrays:
        raise ValueError("it holds no weights")
    return arrays


def _read_name(buffer: _FlatBuffer, tensor: int) -> str:
    first, count = buffer.vector(tensor, _NAME, 1, _MOST_NAME)
    return buffer.data[first : first + count].decode("ascii", "replace")


def _read_shape(buffer: _FlatBuffer, tensor: int) -> tuple[int, ...]:
    first, count = buffer.vector(tensor, _SHAPE, 4, _MOST_AXES)
    return tuple(buffer.number("<i", first + 4 * i) for i in range(count))


def _shaped(
    values: np.ndarray, kind: str, shape: tuple[int, ...], name: str
) -> np.ndarray:
    """Bytes as float32 of a shape."""
    wanted = np.dtype(kind).itemsize
    for side in shape:  # Python's integers do not wrap around
        wanted *= side
    if min(shape, default=1) < 1 or wanted != len(values):
        raise ValueError(
            f"{name!a} of {list(shape)} must have {wanted} bytes, got {len(values)}"
        )
    array = values.view(kind).astype(np.float32).reshape(shape)
    if not np.isfinite(array).all():
        raise ValueError(f"{name!a} has weights that are not finite")
    return array
