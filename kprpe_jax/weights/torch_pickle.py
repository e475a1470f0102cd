"""The description inside PyTorch's files: a pickle whose instructions are walked.

A small machine knows containers, numbers and tensors. Whatever else the pickle names
stays an `Unknown`, which is never imported and never called.
"""

import math
import operator
import pickletools
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

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
_MARK = object()


class Unknown(NamedTuple):
    """An object of a class that is not read.

    Attributes:
      name: of the class or function, as the file has it.
    """

    name: str


class Storage(NamedTuple):
    """Numbers of a file, which are read when a tensor needs them.

    Attributes:
      dtype: of a number.
      member: their name.
    """

    dtype: np.dtype
    member: str


class Machine:
    """A stack and a memo, and a source of numbers."""

    def __init__(self, numbers: Callable[[Storage], np.ndarray] | None, most: int):
        """Begin.

        Args:
          numbers: gives those of a storage; None = tensors are not made.
          most: how many numbers all tensors may have together.

        Attributes:
          storages: those that the description names, in its order.
        """
        self._numbers = numbers
        self._left = most
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}

    def run(self, pickle: bytes | BinaryIO) -> Any:
        """Walk a description to its end.

        Raises: ValueError: it has none, or an instruction that is not known.
        """
        for opcode, argument, _ in pickletools.genops(pickle):
            if opcode.name == "STOP":
                return self._stack.pop()
            self._step(opcode.name, argument)
        raise ValueError("its description has no end")

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
            storage = _storage(stack.pop())
            stack.append(self.storages.setdefault(storage.member, storage))
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
        storage: Storage,
        offset: int,
        size: tuple[int, ...],
        stride: tuple[int, ...],
    ) -> np.ndarray:
        """The array of a tensor, a view of its storage."""
        if self._numbers is None:
            return np.zeros(0)
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


def _storage(identifier: Any) -> Storage:
    """The storage that a description names.

    It is ("storage", type, member, place, size), before PyTorch 1.6 with what it is a
    view of, which is None since version 0.4.
    """
    kind, storage, member, _, _, *view = identifier
    if view not in ([], [None]):
        raise ValueError("its storages are views of others")
    name = storage.name.rpartition(".")[2]
    if kind != "storage" or name not in _STORAGES:
        raise ValueError(f"it holds numbers of an unknown type {name}")
    return Storage(np.dtype(_STORAGES[name]), str(member))


def _pairs(items: list[Any]) -> list[tuple[Any, Any]]:
    """Keys and values; those whose key is no text and no number are left out."""
    pairs = zip(items[::2], items[1::2], strict=True)
    return [(key, value) for key, value in pairs if isinstance(key, str | int | float)]
