"""Lists of pairs for verification, such as pairs.txt of Labeled Faces in the Wild."""

import os
from typing import NamedTuple

import numpy as np


class PairList(NamedTuple):
    """Pairs of images by their keys, fold after fold.

    Attributes:
      keys: text [P, 2], such as `Abel_Pacheco/Abel_Pacheco_0001.jpg`.
      same: bool [P].
      num_folds: F.
    """

    keys: np.ndarray
    same: np.ndarray
    num_folds: int


def read_lfw_pairs(path: str | os.PathLike) -> PairList:
    """Read LFW's official list.

    The first line is the number of folds and of pairs of each kind per fold; then
    `name i j` is a pair of one person, `name i other j` one of two.

    Raises: ValueError: no such file; fewer than two folds; the line that is of another
      form, or compares an image with itself or a person with another of the same name;
      too few lines.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise ValueError(f"{path} must be a list of pairs; got no file")
    with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
        head, *rows = [line.split() for line in file if line.strip()] or [[]]
    if not 1 <= len(head) <= 2 or not all(number.isdigit() for number in head):
        raise ValueError(
            f"{path} must begin with the number of folds and of pairs "
            f"of each kind; got {' '.join(head)!r}; give the official list."
        )
    folds, per_kind = (int(head[0]), int(head[1])) if head[1:] else (1, int(head[0]))
    if folds < 2:
        raise ValueError(
            f"{path} must have two folds or more, for the threshold of "
            f"one is chosen on the others; got {folds}; give the list of ten folds."
        )
    if len(rows) != 2 * folds * per_kind:
        raise ValueError(
            f"{path} must have {2 * folds * per_kind} pairs "
            f"as its first line says; got {len(rows)}; fetch the whole list."
        )
    keys, same = [], []
    for line, row in enumerate(rows, 2):
        if len(row) not in (3, 4) or not row[1].isdigit() or not row[-1].isdigit():
            raise ValueError(
                f"pair line {line} of {path} must be `name "
                f"i j` or `name i other j`; got {' '.join(row)!r}; repair the line."
            )
        one_person = len(row) == 3
        if int(row[1]) == int(row[2]) if one_person else row[0] == row[2]:
            raise ValueError(
                f"pair line {line} of {path} must be two images of one "
                f"person, or two people; got {' '.join(row)!r}; repair the line."
            )
        people = (row[0], row[0] if one_person else row[2])
        images = zip(people, (row[1], row[-1]), strict=True)
        keys.append([f"{name}/{name}_{int(index):04d}.jpg" for name, index in images])
        same.append(one_person)
    return PairList(np.array(keys), np.array(same), folds)


def tables(pairs: PairList) -> dict[str, np.ndarray]:
    """The list as tables of a data set (`data.pair_sets` reads them)."""
    return {
        "pair_keys": pairs.keys,
        "pair_same": pairs.same,
        "pair_folds": np.array(pairs.num_folds),
    }
