"""Read NumPy archives from strangers: no pickle, bounded memory, one kind of error."""

import contextlib
import io
import lzma
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator

import numpy as np

_LARGEST_RATIO = 20  # of an archive's contents to its size; weights shrink by a tenth
_SMALL = 1 << 26  # bytes, of which any archive may hold as many
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class _Arrays(dict):
    """Arrays by name, whose error says what is missing of what."""

    def __missing__(self, name: str) -> np.ndarray:
        """Refuse a name that is not there."""
        raise KeyError(f"the archive has no array {name}")


class NpzReader:
    """The arrays of an .npz file, each read when it is asked for."""

    def __init__(self, path: str | os.PathLike):
        """Open the file.

        Args:
          path: of a file that `numpy.savez` or `numpy.savez_compressed` wrote.
        Raises: ValueError: another kind of file, or a damaged one.
        """
        with _one_kind_of_error():
            self._archive = zipfile.ZipFile(path)
            infos = self._archive.infolist()
            self._members = {info.filename.removesuffix(".npy"): info for info in infos}
            self._most = max(_LARGEST_RATIO * os.path.getsize(path), _SMALL)

    def __contains__(self, name: str) -> bool:
        """Whether there is an array of this name."""
        return name in self._members

    def read(self, name: str) -> np.ndarray:
        """One array.

        Raises: KeyError: there is none of this name. ValueError: a damaged one, one
          that is more than 20 times as large as the file, or one of Python objects.
        """
        if name not in self._members:
            raise KeyError(f"the archive has no array {name}")
        info = self._members[name]
        self._check_size(info.file_size)
        with _one_kind_of_error():
            return _array(self._archive.read(info))

    def read_all(self) -> dict[str, np.ndarray]:
        """All arrays, which together must not be too large.

        Raises: ValueError: as `read`.
        """
        self._check_size(sum(info.file_size for info in self._members.values()))
        return _Arrays((name, self.read(name)) for name in self._members)

    def close(self) -> None:
        """Close the file."""
        self._archive.close()

    def _check_size(self, size: int) -> None:
        if size > self._most:
            raise ValueError(f"it would fill {size >> 20} MiB of memory")


def read_npz(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read all arrays of an .npz file.

    Args:
      path: of a file that `numpy.savez` or `numpy.savez_compressed` wrote.
    Raises: ValueError: another kind of file, a damaged one, one whose contents are more
      than 20 times its size, or one with Python objects.
    """
    reader = NpzReader(path)
    try:
        return reader.read_all()
    finally:
        reader.close()


@contextlib.contextmanager
def _one_kind_of_error() -> Iterator[None]:
    """Turn what a damaged archive raises into ValueErrors."""
    try:
        yield
    except ValueError:
        raise
    except (
        OSError, EOFError, RuntimeError, MemoryError, KeyError, TypeError, SyntaxError,
        AttributeError, struct.error, zlib.error, lzma.LZMAError, zipfile.BadZipFile,
    ) as error:  # fmt: skip
        reason = (str(error).splitlines() or [""])[0][:160]
        raise ValueError(reason or type(error).__name__) from error


def _array(data: bytes) -> np.ndarray:
    """The array of a member; its header must say how many bytes follow."""
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"an array has the format {version[0]}.{version[1]}")
    shape, fortran, dtype = _HEADERS[version](file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects (pickle), which are not read")
    start, count = file.tell(), math.prod(shape)
    if count * dtype.itemsize != len(data) - start:
        raise ValueError("an array has other numbers than its shape says")
    if not count * dtype.itemsize:
        return np.zeros(shape, dtype)
    array = np.frombuffer(data, dtype, offset=start)
    return array.reshape(shape, order="F" if fortran else "C").copy()
