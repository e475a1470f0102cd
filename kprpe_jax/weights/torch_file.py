"""Read PyTorch's files (`torch.save` since 1.6) as data: no PyTorch, nothing executed.

Such a file is a zip archive: a pickle that describes the saved object, and a member of
raw numbers for each storage. The pickle's instructions are walked by a small machine
that knows containers, numbers and tensors. Whatever else the pickle names stays an
`Unknown`, which is never imported and never called.
"""

import math
import operator
import pickletools
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

_STORAGES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
_MOST_PICKLE = 1 << 26  # bytes of the description
_MARK = object()


class Unknown(NamedTuple):
    """An object of a class that is not read.

    Attributes:
      name: of the class or function, as the file has it.
    """

    name: str


class _Storage(NamedTuple):
    """Numbers of a member, read when a tensor needs them."""

    dtype: np.dtype
    member: str


def is_torch_file(path: Path) -> bool:
    """Whether a file is a zip archive, as PyTorch writes since version 1.6."""
    return zipfile.is_zipfile(path)


def read_torch_file(path: Path) -> Any:
    """The saved object, tensors as NumPy arrays.

    Memory and time are bounded by the size of the file: storages must be stored
    uncompressed, all tensors together have no more numbers than the file has bytes, and
    keys of dicts that are not text or numbers are left out.

    Args:
      path: of a zip archive that `torch.save` wrote.
    Returns: dicts, lists, tuples, numbers, text, arrays, and `Unknown` for all else;
      attributes of dicts and of unknown objects are left out.
    Raises: ValueError: another kind of file, a damaged one.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _Reader(archive).read()
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError) as error:
        raise ValueError(str(error) or type(error).__name__) from error
    except (
        IndexError, KeyError, TypeError, AttributeError, OverflowError, MemoryError,
        RecursionError,
    ) as error:  # fmt: skip
        raise ValueError("its description makes no sense") from error


class _Reader:
    """The machine: a stack, a memo, and the archive of storages."""

    def __init__(self, archive: zipfile.ZipFile):
        self._archive = archive
        self._root, self._info = _find_description(archive)
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._storages: dict[str, np.ndarray] = {}
        self._left = sum(x.compress_size for x in archive.infolist())
        self._swap = self._is_foreign()

    def read(self) -> Any:
        """Walk the description to its end."""
        pickle = self._archive.read(self._info)
        for opcode, argument, _ in pickletools.genops(pickle):
            if opcode.name == "STOP":
                return self._stack.pop()
            self._step(opcode.name, argument)
        raise ValueError("its description has no end")

    def _is_foreign(self) -> bool:
        """Whether the numbers have another byte order than this machine."""
        member = f"{self._root}byteorder"
        if member not in self._archive.NameToInfo:
            return False
        return self._archive.read(member).decode() != sys.byteorder

    def _step(self, name: str, argument: Any) -> None:
        stack, memo = self._stack, self._memo
        if name in _CONSTANTS:
            stack.append(_CONSTANTS[name]())
        elif name in _ARGUMENTS:
            stack.append(argument)
        elif name in ("PROTO", "FRAME"):
            pass
        elif name == "MARK":
            stack.append(_MARK)
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(memo[argument])
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            stack[-count:] = [tuple(stack[-count:])]
        elif name in _COLLECT:
            items = self._to_mark()
            stack.append(_COLLECT[name](items))
        elif name in ("APPEND", "APPENDS", "ADDITEMS"):
            items = [stack.pop()] if name == "APPEND" else self._to_mark()
            if isinstance(stack[-1], list):
                stack[-1].extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            last = [stack.pop(), stack.pop()][::-1] if name == "SETITEM" else None
            items = last or self._to_mark()
            if isinstance(stack[-1], dict):
                stack[-1].update(_pairs(items))
        elif name == "GLOBAL":
            stack.append(Unknown(argument.replace(" ", ".")))
        elif name == "STACK_GLOBAL":
            function, module = stack.pop(), stack.pop()
            stack.append(Unknown(".".join([module, function])))
        elif name in ("REDUCE", "NEWOBJ", "NEWOBJ_EX"):
            if name == "NEWOBJ_EX":
                stack.pop()  # arguments by name, which nothing that is known has
            arguments, function = stack.pop(), stack.pop()
            stack.append(self._call(function, arguments))
        elif name in ("OBJ", "INST"):
            self._to_mark()
            stack.append(Unknown(""))
        elif name == "BUILD":
            stack.pop()  # attributes
        elif name == "BINPERSID":
            stack.append(_storage(stack.pop()))
        elif name == "POP":
            stack.pop()
        elif name == "POP_MARK":
            self._to_mark()
        elif name == "DUP":
            stack.append(stack[-1])
        else:
            raise ValueError(f"its description has an instruction {name}")

    def _to_mark(self) -> list[Any]:
        """Take what lies above the last mark, and the mark."""
        start = len(self._stack) - 1
        while self._stack[start] is not _MARK:
            start -= 1
            if start < 0:
                raise IndexError
        items = self._stack[start + 1 :]
        del self._stack[start:]
        return items

    def _call(self, function: Any, arguments: tuple) -> Any:
        """What the known functions make of their arguments; no function is called."""
        name = function.name if isinstance(function, Unknown) else ""
        if name in ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor"):
            return self._tensor(*arguments[:4])
        if name.startswith("torch._utils._rebuild_parameter"):
            return arguments[0]
        if name == "collections.OrderedDict" and not arguments:
            return {}
        if name == "torch.Size":
            return arguments[0]
        return Unknown(name)

    def _tensor(
        self,
        storage: _Storage,
        offset: int,
        size: tuple[int, ...],
        stride: tuple[int, ...],
    ) -> np.ndarray:
        """The array of a tensor, a view of its storage."""
        numbers = self._numbers(storage)
        layout = [operator.index(x) for x in (offset, *size, *stride)]
        count = math.prod(size)
        last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
        self._left -= count
        if min(layout) < 0 or (count and last >= len(numbers)) or self._left < 0:
            raise ValueError("a tensor has more numbers than the file")
        strides = [s * numbers.itemsize for s in stride]
        numbers = numbers[offset : last + 1] if count else numbers[:0]
        return np.lib.stride_tricks.as_strided(numbers, size, strides, writeable=False)

    def _numbers(self, storage: _Storage) -> np.ndarray:
        """The numbers of a storage, read once."""
        if storage.member not in self._storages:
            info = self._archive.getinfo(f"{self._root}data/{storage.member}")
            if info.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{info.filename} is compressed")
            data = np.frombuffer(self._archive.read(info), np.uint8)
            self._storages[storage.member] = data
        numbers = self._storages[storage.member].view(storage.dtype)
        return numbers.byteswap() if self._swap else numbers


_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": list,
}
_COLLECT: dict[str, Callable[[list], Any]] = {
    "TUPLE": tuple,
    "LIST": list,
    "FROZENSET": list,
    "DICT": lambda items: dict(_pairs(items)),
}
# Numbers, text and bytes: what the instruction carries.
_ARGUMENTS = frozenset(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT UNICODE BINUNICODE "
    "SHORT_BINUNICODE BINUNICODE8 STRING BINSTRING SHORT_BINSTRING BINBYTES "
    "SHORT_BINBYTES BINBYTES8 BYTEARRAY8".split()
)


def _find_description(archive: zipfile.ZipFile) -> tuple[str, zipfile.ZipInfo]:
    """The folder of the archive, and its description."""
    found = [x for x in archive.infolist() if x.filename.endswith("data.pkl")]
    if len(found) != 1:
        raise ValueError("it holds no data.pkl, as PyTorch's files do")
    (info,) = found
    if info.file_size > _MOST_PICKLE:
        raise ValueError(f"its description has {info.file_size} bytes")
    return info.filename.removesuffix("data.pkl"), info


def _storage(identifier: Any) -> _Storage:
    """The storage that a description names: ("storage", type, member, place, size)."""
    kind, storage, member, *_ = identifier
    name = storage.name.rpartition(".")[2]
    if kind != "storage" or name not in _STORAGES:
        raise ValueError(f"it holds numbers of an unknown type {name}")
    return _Storage(np.dtype(_STORAGES[name]), str(member))


def _pairs(items: list[Any]) -> list[tuple[Any, Any]]:
    """Keys and values; those whose key is no text and no number are left out."""
    pairs = zip(items[::2], items[1::2], strict=True)
    return [(key, value) for key, value in pairs if isinstance(key, str | int | float)]
