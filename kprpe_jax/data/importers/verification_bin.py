"""InsightFace's verification sets (lfw.bin, cfp_fp.bin, agedb_30.bin, ...).

Such a file is a Python pickle of (encoded images, booleans): images 2k and 2k + 1 are
pair k, boolean k says whether they show one person. Pickles are programs. Here every
instruction is looked at first, only those that make lists, tuples, bytes, text,
booleans and small integers may occur, and the few names that NumPy arrays and old
byte strings need lead to functions of this file, which know nothing but uint8 bytes.
"""

import io
import math
import os
import pickle
import pickletools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from kprpe_jax.data.importers.record import (
    NO_IDENTITY,
    Bad,
    Record,
    Source,
    file_state,
)

_MAX_FILE_BYTES = 1 << 31  # the largest published set has 0.1 GB
_OPCODES = frozenset(
    """PROTO FRAME STOP MARK MEMOIZE PUT BINPUT LONG_BINPUT GET BINGET LONG_BINGET POP
    EMPTY_LIST LIST APPEND APPENDS EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 NONE NEWTRUE
    NEWFALSE INT BININT BININT1 BININT2 LONG1 STRING BINSTRING SHORT_BINSTRING UNICODE
    BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8 BINUNICODE SHORT_BINUNICODE
    BINUNICODE8 GLOBAL STACK_GLOBAL REDUCE BUILD""".split()
)


def open_verification_bin(path: str | os.PathLike) -> Source:
    """Open a verification set.

    Args:
      path: the .bin file; it is read into memory whole.
    Returns: a source with keys "0000000", ..., the field `pair` and the table
      `pair_same`, bool [P]; nobody's identity is known.
    Raises: ValueError: not such a pickle, a pickle that would do anything else (the
      message names what), not two images for each boolean.
    """
    images, same = read_verification_bin(path)

    def read(start: int) -> Iterator[Record | Bad]:
        for i in range(start, len(images)):
            yield Record(f"{i:07d}", bytes(images[i]), NO_IDENTITY, {"pair": i // 2})

    return Source(
        read,
        state=file_state(path),
        count=len(images),
        extra={"pair": int},
        tables={"pair_same": same},
    )


def read_verification_bin(
    path: str | os.PathLike,
) -> tuple[list[bytes | bytearray], np.ndarray]:
    """Read a verification set without running what it says.

    Returns: 2 P encoded images; same bool [P].
    Raises: ValueError: as `open_verification_bin`.
    """
    path = os.fspath(path)
    where = f"read_verification_bin: {path}"
    if not os.path.isfile(path):
        raise ValueError(
            f"{where} must be a .bin file; got no such file; give its path"
        )
    if os.path.getsize(path) > _MAX_FILE_BYTES:
        raise ValueError(
            f"{where} must be at most {_MAX_FILE_BYTES} bytes; got "
            f"{os.path.getsize(path)}; check that it is a verification set"
        )
    with open(path, "rb") as file:
        content = file.read()
    try:
        _check_opcodes(content)
        value = _Unpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as e:  # damage raises whatever the place of it gives
        raise ValueError(
            f"{where} must be a whole pickle of nothing but lists, bytes, booleans, "
            f"integers and uint8 arrays; got {str(e) or type(e).__name__}; fetch it "
            "again from a source that you trust"
        ) from e
    if not (isinstance(value, tuple | list) and len(value) == 2):
        raise ValueError(
            f"{where} must hold a pair (images, booleans); got {type(value).__name__}; "
            "check the file"
        )
    images, same = value
    if not (isinstance(images, list | tuple) and isinstance(same, list | tuple)):
        raise ValueError(
            f"{where} must hold two lists; got {type(images).__name__} and "
            f"{type(same).__name__}; check the file"
        )
    images = [image.data if isinstance(image, _Array) else image for image in images]
    wrong = [type(i).__name__ for i in images if not isinstance(i, bytes | bytearray)]
    wrong += [type(s).__name__ for s in same if type(s) not in (bool, int)]
    if wrong or len(images) != 2 * len(same) or not images:
        raise ValueError(
            f"{where} must hold two encoded images for each boolean; got {len(images)} "
            f"images, {len(same)} booleans"
            + (f" and a {wrong[0]}" if wrong else "")
            + "; check the file"
        )
    return images, np.array(same, bool)


def _check_opcodes(content: bytes) -> None:
    """Raise unless all instructions are harmless, before the first one runs."""
    for number, (opcode, arg, _) in enumerate(pickletools.genops(content)):
        if opcode.name not in _OPCODES:
            raise ValueError(f"the instruction {opcode.name}")
        if opcode.name in ("PUT", "LONG_BINPUT") and arg > number:
            # The unpickler would make room for as many objects as it is told.
            raise ValueError(f"a memo of {arg} objects")


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Callable:
        return _find(module, name)


class _Array:
    """Stands for a NumPy array of uint8: keeps its bytes."""

    def __init__(self, *unused: Any):
        self.data = b""

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, _, data = state
        # Types first: nested lists may be small in the file and endless when walked.
        good = isinstance(shape, tuple) and all(type(size) is int for size in shape)
        good = good and len(shape) <= 2 and isinstance(data, bytes | bytearray)
        if not (good and isinstance(dtype, _Uint8) and math.prod(shape) == len(data)):
            raise ValueError("an array whose shape, type and bytes do not fit")
        self.data = data  # no copy: a file may name one object a million times


class _Uint8:
    """Stands for the one element type allowed."""

    def __init__(self, name: str | bytes, *unused: Any):
        name = name.decode("latin1") if isinstance(name, bytes) else name
        if not isinstance(name, str) or name not in ("u1", "|u1", "uint8", "B"):
            raise ValueError("an array of another type than uint8")

    def __setstate__(self, state: Any) -> None:
        pass  # byte order and flags: of no meaning for single bytes


def _from_buffer(data: bytes, dtype: _Uint8, shape: Any, order: Any) -> _Array:
    array = _Array()
    array.__setstate__((1, shape, dtype, order, data))
    return array


def _encode(text: str, encoding: str | bytes) -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
        raise ValueError("the name _codecs.encode with another encoding than latin1")
    return text.encode("latin1")


_NAMES = {
    "numpy ndarray": _Array,
    "numpy dtype": _Uint8,
    "multiarray _reconstruct": _Array,
    "numeric _frombuffer": _from_buffer,
    "_codecs encode": _encode,  # how protocol 2 of Python 3 writes bytes
}


def _find(module: str, name: str) -> Callable:
    # Since NumPy 2 the first is called the second.
    short = module.removeprefix("numpy.core.").removeprefix("numpy._core.")
    if f"{short} {name}" not in _NAMES:
        raise ValueError(f"the name {module}.{name}")
    return _NAMES[f"{short} {name}"]
