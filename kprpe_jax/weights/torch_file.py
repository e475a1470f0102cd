"""Read PyTorch's files (`torch.save`) as data: no PyTorch, nothing executed.

Since PyTorch 1.6 such a file is a zip archive: a pickle that describes the saved
object, and a member of raw numbers for each storage. Before, pickles stood one after
another (a magic number, a version, the machine, the object, the names of the storages),
and then the numbers of each storage behind their count. `torch_pickle` walks them.
"""

import io
import lzma
import struct
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from kprpe_jax.weights.torch_pickle import Machine, Storage, Unknown

__all__ = ["Unknown", "is_torch_file", "read_torch_file"]

_MOST_PICKLE = 1 << 26  # bytes of the description
_OLD = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # a pickle of the magic number


def is_torch_file(path: Path) -> bool:
    """Whether a file is a zip archive, or of the form before, both of PyTorch."""
    with path.open("rb") as file:
        return file.read(len(_OLD)) == _OLD or _is_zip(path)


def _is_zip(path: Path) -> bool:
    """Whether a file is a zip archive, be it a damaged one."""
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:
        return True


def read_torch_file(path: Path) -> Any:
    """The saved object, tensors as NumPy arrays.

    Memory and time are bounded by the size of the file: storages must be stored
    uncompressed, all tensors together have no more numbers than the file has bytes, and
    keys of dicts that are not text or numbers are left out.

    Args:
      path: of a file that `torch.save` wrote.
    Returns: dicts, lists, tuples, numbers, text, arrays, and `Unknown` for all else;
      attributes of dicts and of unknown objects are left out.
    Raises: ValueError: another kind of file, a damaged one.
    """
    try:
        if not _is_zip(path):
            return _read_old(path.read_bytes())
        with zipfile.ZipFile(path) as archive:
            return _ZipReader(archive).read()
    except (
        zipfile.BadZipFile, OSError, EOFError, RuntimeError, zlib.error, lzma.LZMAError,
    ) as error:  # fmt: skip
        raise ValueError(str(error) or type(error).__name__) from error
    except (
        IndexError, KeyError, TypeError, AttributeError, OverflowError, MemoryError,
        RecursionError, UnicodeError, struct.error,
    ) as error:  # fmt: skip
        raise ValueError("its description makes no sense") from error


class _ZipReader:
    """The archive of storages."""

    def __init__(self, archive: zipfile.ZipFile):
        self._archive = archive
        self._root, self._info = _find_description(archive)
        self._storages: dict[str, np.ndarray] = {}
        self._swap = self._is_foreign()

    def read(self) -> Any:
        """Walk the description to its end."""
        most = sum(x.compress_size for x in self._archive.infolist())
        return Machine(self._numbers, most).run(self._archive.read(self._info))

    def _is_foreign(self) -> bool:
        """Whether the numbers have another byte order than this machine."""
        member = f"{self._root}byteorder"
        if member not in self._archive.NameToInfo:
            return False
        return self._archive.read(member).decode() != sys.byteorder

    def _numbers(self, storage: Storage) -> np.ndarray:
        """The numbers of a storage, read once."""
        if storage.member not in self._storages:
            info = self._archive.getinfo(f"{self._root}data/{storage.member}")
            if info.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{info.filename} is compressed")
            data = np.frombuffer(self._archive.read(info), np.uint8)
            self._storages[storage.member] = data
        numbers = self._storages[storage.member].view(storage.dtype)
        return numbers.byteswap() if self._swap else numbers


def _find_description(archive: zipfile.ZipFile) -> tuple[str, zipfile.ZipInfo]:
    """The folder of the archive, and its description."""
    found = [x for x in archive.infolist() if x.filename.endswith("data.pkl")]
    if len(found) != 1:
        raise ValueError("it holds no data.pkl, as PyTorch's files do")
    (info,) = found
    if info.file_size > _MOST_PICKLE:
        raise ValueError(f"its description has {info.file_size} bytes")
    return info.filename.removesuffix("data.pkl"), info


def _read_old(data: bytes) -> Any:
    """The object of a file of the form before PyTorch 1.6."""
    file = io.BytesIO(data)
    file.seek(len(_OLD))
    version = Machine(None, 0).run(file)
    about = Machine(None, 0).run(file)
    if version != 1001 or about.get("little_endian") is not True:
        raise ValueError(f"it has the version {version!r}, which is not read")
    start = file.tell()
    scout = Machine(None, 0)
    scout.run(file)
    places, place = {}, file
    for member in Machine(None, 0).run(file):
        storage = scout.storages[member]
        (count,) = struct.unpack("<q", file.read(8))
        size = count * storage.dtype.itemsize
        if not 0 <= size <= len(data) - file.tell():
            raise ValueError("a storage has more numbers than the file")
        places[member] = np.frombuffer(data, storage.dtype, count, file.tell())
        place = file.seek(size, io.SEEK_CUR)
    if place != len(data):
        raise ValueError("it does not end with its last storage")
    file.seek(start)
    return Machine(lambda storage: places[storage.member], len(data)).run(file)
