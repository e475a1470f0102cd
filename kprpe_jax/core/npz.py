"""Read NumPy archives from strangers: no pickle, bounded memory, one kind of error."""

import io
import lzma
import math
import os
import struct
import zipfile
import zlib

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


def read_npz(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read all arrays of an .npz file.

    Args:
      path: of a file that `numpy.savez` or `numpy.savez_compressed` wrote.
    Raises: ValueError: another kind of file, a damaged one, one whose contents are more
      than 20 times its size, or one with Python objects.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
            size = sum(info.file_size for info in infos)
            if size > max(_LARGEST_RATIO * os.path.getsize(path), _SMALL):
                raise ValueError(f"it would fill {size >> 20} MiB of memory")
            return _Arrays(
                (info.filename.removesuffix(".npy"), _array(archive.read(info)))
                for info in infos
            )
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
        raise ValueError("it holds Python objects, which are not read")
    start, count = file.tell(), math.prod(shape)
    if count * dtype.itemsize != len(data) - start:
        raise ValueError("an array has other numbers than its shape says")
    if not count * dtype.itemsize:
        return np.zeros(shape, dtype)
    array = np.frombuffer(data, dtype, offset=start)
    return array.reshape(shape, order="F" if fortran else "C").copy()
