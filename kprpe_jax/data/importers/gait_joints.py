"""Joints of gait sequences: an .npz, a CSV, or OpenGait's folder of pose pickles.

npz     one array for each sequence, named by its key, such as "0001/nm-01/090": float
        [T, 17, 2], (x, y) in COCO's order, or [T, 17, 3] with a score for each joint.
CSV     lines "key,frame,x,y,x,y,..." of 2 + 34 fields, or 2 + 51 with a score after
        each y; frames count from 0; a header line may come first.
folder  a .pkl below the same path as the sequence, with such an array.
"""

import os
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from kprpe_jax.core.npz import NpzReader
from kprpe_jax.data.gait_rows import NUM_JOINTS
from kprpe_jax.data.importers.safe_pickle import PickledArray, read_pickle
from kprpe_jax.data.importers.tables import split_lines

FLOATS = ("float16", "float32", "float64")


class Joints(NamedTuple):
    """Joints of a sequence.

    Attributes:
      points: float32 [T, 17, 2], 0 where not known.
      known: bool [T, 17].
    """

    points: np.ndarray
    known: np.ndarray


# key of a sequence -> its joints, None where there are none; raises ValueError.
Lookup = Callable[[str], Joints | None]


def open_joints(path: str | os.PathLike, *, min_score: float = 0.1) -> Lookup:
    """Open joints in one of the three forms.

    Args:
      path: a .npz, a .csv or a folder.
      min_score: joints that score less are missing, as are those that are not finite.
    Returns: see `Lookup`; damage of one sequence's array shows when it is asked for.
    Raises: ValueError: no such file, or none of these forms.
    """
    path = os.fspath(path)
    if os.path.isdir(path):
        read = _from_folder(path)
    elif path.endswith(".npz"):
        read = _from_archive(path)
    elif os.path.isfile(path):
        table = _read_csv(path)
        read = table.get
    else:
        raise ValueError(
            f"{path} must be an .npz, a CSV or a folder of pickles; got "
            "no such file; give the path of the joints"
        )

    def lookup(key: str) -> Joints | None:
        array = read(key)
        return None if array is None else _checked(array, key, min_score)

    return lookup


def _checked(array: np.ndarray, key: str, min_score: float) -> Joints:
    if array.ndim != 3 or array.shape[1] != NUM_JOINTS or array.shape[2] not in (2, 3):
        raise ValueError(
            f"joints must be [T, {NUM_JOINTS}, 2 or 3]; got {list(array.shape)} for "
            f"{key}"
        )
    array = array.astype(np.float32)
    known = np.isfinite(array).all(-1)
    if array.shape[2] == 3:
        known &= array[..., 2] >= min_score
    points = np.where(known[..., None], array[..., :2], 0)
    return Joints(points, known)


def _from_archive(path: str) -> Callable[[str], np.ndarray | None]:
    try:
        archive = NpzReader(path)
    except ValueError as e:
        raise ValueError(
            f"{path} must be an .npz archive; got "
            f"{str(e).splitlines()[0]}; write it anew"
        ) from e

    def read(key: str) -> np.ndarray | None:
        if key not in archive:
            return None
        try:
            array = archive.read(key)
        except ValueError as e:
            raise ValueError(f"{path} is damaged at {key} ({e})") from e
        if array.dtype.kind not in "fiu":
            raise ValueError(f"joints must be numbers; got {array.dtype} for {key}")
        return array

    return read


def _from_folder(path: str) -> Callable[[str], np.ndarray | None]:
    def read(key: str) -> np.ndarray | None:
        folder = os.path.join(path, key)
        files = os.listdir(folder) if os.path.isdir(folder) else []
        pickles = sorted(name for name in files if name.endswith(".pkl"))
        named = [name for name in pickles if "pose" in name.lower()] or pickles
        if not named:
            return None
        value = read_pickle(
            os.path.join(folder, named[0]),
            caller="--joints",
            wanted="a pickle of joints",
            dtypes=FLOATS,
        )
        if not isinstance(value, PickledArray):
            raise ValueError(
                f"joints must be one array; got {type(value).__name__} for {key}"
            )
        return value.to_numpy()

    return read


def _read_csv(path: str) -> dict[str, np.ndarray]:
    frames: dict[str, dict[int, np.ndarray]] = {}
    for number, fields in split_lines(path, ","):
        try:
            frame, values = int(fields[1]), np.array(fields[2:], np.float32)
        except (ValueError, IndexError):
            if number == 1:
                continue  # the header
            frame, values = -1, np.zeros(0)
        if (
            values.size not in (2 * NUM_JOINTS, 3 * NUM_JOINTS)
            or not 0 <= frame < 10**5
        ):
            raise ValueError(
                f"line {number} of {path} must be key,frame and "
                f"{2 * NUM_JOINTS} or {3 * NUM_JOINTS} numbers; got "
                f"{','.join(fields)[:80]!r}; repair the line"
            )
        joints = values.reshape(NUM_JOINTS, -1)
        if joints.shape[1] == 2:
            joints = np.concatenate([joints, np.ones((NUM_JOINTS, 1))], 1)
        frames.setdefault(fields[0], {})[frame] = joints
    table = {}
    for key, rows in frames.items():
        array = np.full((max(rows) + 1, NUM_JOINTS, 3), np.nan, np.float32)
        for frame, joints in rows.items():
            array[frame] = joints
        table[key] = array
    return table
