"""Data sets with an official list of pairs: what verification compares."""

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kprpe_jax.data.faces import FaceRows, check_keypoints, open_faces
from kprpe_jax.data.keys import match_keys
from kprpe_jax.data.store import only_split, read_tables


class PairSet(NamedTuple):
    """Images and their pairs.

    Attributes:
      faces: N images, decoded as they are read; only those that a pair names.
      first, second: int [P], rows of `faces`.
      same: bool [P]; folds are contiguous.
      num_folds: F.
    """

    faces: FaceRows
    first: np.ndarray
    second: np.ndarray
    same: np.ndarray
    num_folds: int


def open_pair_set(
    data_dir: str | os.PathLike,
    name: str,
    *,
    image_size: tuple[int, int],
    needs_keypoints: bool = False,
) -> PairSet:
    """Open an import of a verification set, or one that was given a list of pairs.

    Args:
      data_dir, name: of the data set, which has one split.
      image_size: (height, width) that every image must have.
      needs_keypoints: of `FaceRows`.
    Raises: ValueError: no such data set; one without pairs; pairs that name images
      which the import does not hold, or has no keypoints of where they are needed;
      pairs of both kinds in fewer than two folds, or in more folds than pairs.
    """
    tables = read_tables(data_dir, name)
    if "pair_same" not in tables:
        raise ValueError(
            f"open_pair_set: {name} must hold pairs; got a data set without; import a "
            "verification set (--kind insightface_bin), or name a list (--pairs)"
        )
    same = tables["pair_same"]
    num_folds = int(tables.get("pair_folds", 10))
    # Of pairs of one kind only the mean similarity is wanted.
    if same.any() and not same.all() and not 2 <= num_folds <= len(same):
        raise ValueError(
            f"open_pair_set: {name} must have its {len(same)} pairs in 2 .. "
            f"{len(same)} folds, for the threshold of one is chosen on the others; got "
            f"{num_folds}; import it with a list of ten folds"
        )
    faces = open_faces(
        data_dir,
        name,
        only_split(data_dir, name),
        image_size=image_size,
        needs_keypoints=needs_keypoints,
    )
    if "pair_keys" in tables:
        wanted = tables["pair_keys"].astype(str)
    else:  # images 2k and 2k + 1 of a .bin file are pair k
        numbers = np.arange(2 * len(same)).reshape(-1, 2)
        wanted = np.char.zfill(numbers.astype(str), 7)
    rows = find_pairs(faces.keys(), wanted, name)
    used, place = np.unique(rows, return_inverse=True)
    first, second = place.reshape(-1, 2).T
    faces = faces.select(used)
    if needs_keypoints:
        check_keypoints(name, faces.has_keypoints())
    return PairSet(faces, first, second, same, num_folds)


def find_pairs(keys: Sequence[str], wanted: np.ndarray, name: str) -> np.ndarray:
    """Rows of the images of pairs, by `match_keys`.

    Args:
      keys: of the data set's images.
      wanted: text [P, 2], keys.
      name: of the data set, for messages.
    Returns: int64 [P, 2].
    Raises: ValueError: the data set lacks some.
    """
    names, place = np.unique(wanted, return_inverse=True)
    rows = match_keys(keys, names.tolist())
    missing = [key for key, row in zip(names, rows, strict=True) if row is None]
    if missing:
        raise ValueError(
            f"{name} must hold every image that its pairs name; {len(missing)} of "
            f"{len(names)} are missing, such as {', '.join(missing[:3])}; it has names "
            f"such as {', '.join(keys[:2])}; import the whole archive"
        )
    return np.array(rows)[place].reshape(wanted.shape)
