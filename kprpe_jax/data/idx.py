"""IDX files, the format in which MNIST and its relatives are published."""

import gzip
import math
import os
import zlib

import numpy as np

_MAGIC_UINT8 = 0x08  # third header byte: the type of the values
_GZIP_MAGIC = b"\x1f\x8b"


def read_idx(path: str | os.PathLike, *, ndim: int) -> np.ndarray:
    """Read one IDX file of unsigned bytes, gzip-compressed or plain.

    The header is two zero bytes, the value type (8 = uint8), the number of
    dimensions, then each size as a big-endian uint32. Exactly the announced
    number of bytes must follow.

    Args:
      path: the file; compression is recognized by content, not by name.
      ndim: dimensions that the file must have: 3 for images [N, H, W], 1 for
        labels [N].
    Returns: uint8 array with the sizes that the header announces.
    Raises: ValueError: missing, not IDX, another number of dimensions, another
      value type, corrupt compression, too few or too many bytes.
    """
    content = _read_bytes(path)
    where = os.fspath(path)
    if len(content) < 4 or content[:2] != b"\0\0":
        raise ValueError(
            f"{where} is not an IDX file: it must begin with two zero bytes; got "
            f"0x{content[:4].hex() or ' nothing'}; check that it is the right file"
        )
    kind, got_ndim = content[2], content[3]
    if kind != _MAGIC_UINT8 or got_ndim != ndim:
        raise ValueError(
            f"{where} must have magic number {_MAGIC_UINT8 << 8 | ndim} (uint8, {ndim} "
            f"dimensions); got {kind << 8 | got_ndim}; check that images and labels "
            "are not exchanged"
        )
    header = 4 + 4 * ndim
    if len(content) < header:
        raise ValueError(
            f"{where} is truncated: the header needs {header} bytes; got "
            f"{len(content)}; fetch the file again"
        )
    shape = tuple(int(n) for n in np.frombuffer(content, ">u4", ndim, offset=4))
    want, got = math.prod(shape), len(content) - header
    if got != want:
        raise ValueError(
            f"{where} is {'truncated' if got < want else 'too long'}: its header "
            f"announces {' x '.join(map(str, shape))} = {want} values; got {got}; "
            "fetch the file again"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _read_bytes(path: str | os.PathLike) -> bytes:
    """Return the file's content, decompressed if it is gzip."""
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise ValueError(f"{path} is not a file; give the path of an IDX file")
    with open(path, "rb") as f:
        content = f.read()
    if not content.startswith(_GZIP_MAGIC):
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as e:
        raise ValueError(
            f"{path} is a corrupt or truncated gzip file ({e}); fetch the file again"
        ) from e
