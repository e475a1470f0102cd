"""InsightFace's verification sets (lfw.bin, cfp_fp.bin, agedb_30.bin, ...).

Such a file is a Python pickle of (encoded images, booleans): images 2k and 2k + 1 are
pair k, boolean k says whether they show one person. It is read by `safe_pickle`.
"""

import os
from collections.abc import Iterator

import numpy as np

from kprpe_jax.data.importers.record import (
    NO_IDENTITY,
    Record,
    RecordSource,
    RejectedRecord,
    file_state,
)
from kprpe_jax.data.importers.safe_pickle import PickledArray, read_pickle


def open_verification_bin(path: str | os.PathLike) -> RecordSource:
    """Open a verification set.

    Args:
      path: the .bin file; it is read into memory whole.
    Returns: a source with keys "0000000", ..., the field `pair` and the table
      `pair_same`, bool [P]; no identity is known.
    Raises: ValueError: not such a pickle, a pickle that would do anything else (the
      message names what), not two images for each boolean.
    """
    images, same = read_verification_bin(path)

    def read(start: int) -> Iterator[Record | RejectedRecord]:
        for i in range(start, len(images)):
            yield Record(f"{i:07d}", bytes(images[i]), NO_IDENTITY, {"pair": i // 2})

    return RecordSource(
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
    where = path
    value = read_pickle(
        path,
        caller="import",
        wanted="a .bin file, a verification set",
        dtypes=("uint8", "bool"),
    )
    if not (isinstance(value, tuple | list) and len(value) == 2):
        raise ValueError(
            f"{where} must hold a pair (images, booleans); got {type(value).__name__}; "
            "check the file"
        )
    images, same = value
    if isinstance(same, PickledArray) and len(same.shape) == 1:
        same = same.to_numpy().tolist()
    if not (isinstance(images, list | tuple) and isinstance(same, list | tuple)):
        raise ValueError(
            f"{where} must hold two lists; got {type(images).__name__} and "
            f"{type(same).__name__}; check the file"
        )
    flat = [isinstance(i, PickledArray) and len(i.shape) <= 2 for i in images]
    images = [i.data if f else i for i, f in zip(images, flat, strict=True)]
    wrong = [type(i).__name__ for i in images if not isinstance(i, bytes | bytearray)]
    wrong += [type(s).__name__ for s in same if type(s) not in (bool, int)]
    wrong += [f"label {s}" for s in same if type(s) is int and s not in (0, 1)]
    if wrong or len(images) != 2 * len(same) or not images:
        raise ValueError(
            f"{where} must hold two encoded images for each boolean; got {len(images)} "
            f"images, {len(same)} booleans"
            + (f" and a {wrong[0]}" if wrong else "")
            + "; check the file"
        )
    return images, np.array(same, bool)
