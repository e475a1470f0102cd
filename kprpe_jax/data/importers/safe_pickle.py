"""Read pickles that hold plain data, and refuse all others.

Pickles are programs. Here every instruction is checked first, only those that make
lists, tuples, bytes, text, booleans and small integers may occur, and the few names
that NumPy arrays and old byte strings need lead to functions of this file, which know
nothing but arrays of a few plain types.
"""

import io
import math
import os
import pickle
import pickletools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

_MAX_FILE_BYTES = 1 << 31
_MAX_DIMS = 4
_OPCODES = frozenset(
    """PROTO FRAME STOP MARK MEMOIZE PUT BINPUT LONG_BINPUT GET BINGET LONG_BINGET POP
    EMPTY_LIST LIST APPEND APPENDS EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 NONE NEWTRUE
    NEWFALSE INT BININT BININT1 BININT2 LONG1 STRING BINSTRING SHORT_BINSTRING UNICODE
    BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8 BINUNICODE SHORT_BINUNICODE
    BINUNICODE8 GLOBAL STACK_GLOBAL REDUCE BUILD""".split()
)
_TYPE_NAMES = {
    "uint8": ("u1", "B"),
    "bool": ("b1", "?"),
    "float16": ("f2", "e"),
    "float32": ("f4", "f"),
    "float64": ("f8", "d"),
}


class PickledArray:
    """Stands for a NumPy array: its bytes, and what they mean."""

    def __init__(self, *unused: Any):
        self.data: bytes | bytearray = b""
        self.shape: tuple[int, ...] = ()
        self._type = np.dtype(np.uint8)
        self._order = "C"

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        # Types first: nested lists may be small in the file and endless when walked.
        good = isinstance(shape, tuple) and all(type(size) is int for size in shape)
        good = good and len(shape) <= _MAX_DIMS and isinstance(data, bytes | bytearray)
        if not (
            good
            and isinstance(dtype, _Dtype)
            and math.prod(shape) * dtype.type.itemsize == len(data)
            and min(shape, default=0) >= 0
        ):
            raise ValueError("an array whose shape, type and bytes do not fit")
        self.data = data  # no copy: a file may name one object a million times
        self.shape, self._type = shape, dtype.type
        self._order = "F" if fortran in (True, 1, "F") else "C"

    def to_numpy(self) -> np.ndarray:
        """The array; it shares the bytes."""
        flat = np.frombuffer(self.data, self._type)
        return flat.reshape(self.shape, order=self._order)


def read_pickle(
    path: str | os.PathLike, *, caller: str, wanted: str, dtypes: Sequence[str]
) -> Any:
    """Read a pickle without running what it says.

    Args:
      path: the file; it is read into memory whole.
      caller: begins the message, with the path.
      wanted: what the file should be, as in "a .bin file".
      dtypes: of the arrays that may occur, some of uint8, bool, float16, float32 and
        float64.
    Returns: what it holds; `PickledArray` for arrays.
    Raises: ValueError: no such file, a huge one, a broken one, or one that would do
      anything else (the message names what).
    """
    path = os.fspath(path)
    where = f"{caller}: {path}"
    if not os.path.isfile(path):
        raise ValueError(f"{where} must be {wanted}; got no such file; give its path")
    if os.path.getsize(path) > _MAX_FILE_BYTES:
        raise ValueError(
            f"{where} must be at most {_MAX_FILE_BYTES} bytes; got "
            f"{os.path.getsize(path)}; check that it is {wanted}"
        )
    with open(path, "rb") as file:
        content = file.read()
    try:
        _check_opcodes(content)
        return _Unpickler(content, dtypes).load()
    except Exception as e:  # damage raises whatever the place of it gives
        raise ValueError(
            f"{where} must be a whole pickle of nothing but lists, bytes, booleans, "
            f"integers and {', '.join(dtypes)} arrays; got "
            f"{str(e) or type(e).__name__}; fetch it again from a source that you trust"
        ) from e


def _check_opcodes(content: bytes) -> None:
    """Raise unless all instructions are harmless, before the first one runs."""
    for number, (opcode, arg, _) in enumerate(pickletools.genops(content)):
        if opcode.name not in _OPCODES:
            raise ValueError(f"the instruction {opcode.name}")
        if opcode.name in ("PUT", "LONG_BINPUT") and arg > number:
            # The unpickler would make room for as many objects as it is told.
            raise ValueError(f"a memo of {arg} objects")


class _Unpickler(pickle.Unpickler):
    def __init__(self, content: bytes, dtypes: Sequence[str]):
        super().__init__(io.BytesIO(content), encoding="bytes")
        self._names = {
            "numpy ndarray": PickledArray,
            "numpy dtype": partial(_Dtype, dtypes),
            "multiarray _reconstruct": PickledArray,
            "multiarray scalar": _scalar,
            "numeric _frombuffer": _from_buffer,
            "_codecs encode": _encode,  # how protocol 2 of Python 3 writes bytes
        }

    def find_class(self, module: str, name: str) -> Callable:
        # Since NumPy 2 the first is called the second.
        short = module.removeprefix("numpy.core.").removeprefix("numpy._core.")
        if f"{short} {name}" not in self._names:
            raise ValueError(f"the name {module}.{name}")
        return self._names[f"{short} {name}"]


class _Dtype:
    """Stands for one of the element types allowed."""

    def __init__(self, allowed: Sequence[str], name: str | bytes, *unused: Any):
        name = name.decode("latin1") if isinstance(name, bytes) else name
        for dtype in allowed:
            if isinstance(name, str) and name.lstrip("|<=") in (
                dtype,
                *_TYPE_NAMES[dtype],
            ):
                self.type = np.dtype(dtype).newbyteorder("<")
                return
        raise ValueError(f"an array of another type than {', '.join(allowed)}")

    def __setstate__(self, state: Any) -> None:
        # The byte order; flags have no meaning for plain numbers.
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else "<"
        if order in (">", b">"):
            self.type = self.type.newbyteorder(">")


def _from_buffer(data: bytes, dtype: _Dtype, shape: Any, order: Any) -> PickledArray:
    array = PickledArray()
    array.__setstate__((1, shape, dtype, order, data))
    return array


def _scalar(dtype: _Dtype, data: bytes) -> Any:
    """A NumPy number as Python's."""
    if not isinstance(dtype, _Dtype) or len(data) != dtype.type.itemsize:
        raise ValueError("a number whose type and bytes do not fit")
    return np.frombuffer(data, dtype.type)[0].item()


def _encode(text: str, encoding: str | bytes) -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
        raise ValueError("the name _codecs.encode with another encoding than latin1")
    return text.encode("latin1")
