"""Pairs of images for verification, sampled where a data set has no official list."""

from typing import NamedTuple

import numpy as np


class Pairs(NamedTuple):
    """Pairs of rows; sampled ones are genuine and impostor in turn.

    Attributes:
      first, second: int [P], rows.
      same: bool [P]; folds are contiguous.
      num_folds: of a verification; each must have both kinds.
    """

    first: np.ndarray
    second: np.ndarray
    same: np.ndarray
    num_folds: int = 10


def sample_pairs(labels: np.ndarray, *, count: int, seed: int) -> Pairs:
    """Draw half genuine and half impostor pairs, every identity alike.

    A genuine pair: an identity with at least two images, then two of its images. An
    impostor pair: two identities, then an image of each.

    Args:
      labels: int [N] of all rows; those with a label < 0 are unlabeled and left
        out: no two of them are known to be of one person.
      count: P, even.
      seed: the same gives the same pairs.
    Raises: ValueError: fewer than two identities, none with two images, an odd count.
    """
    order = np.argsort(labels, kind="stable")
    order = order[np.searchsorted(labels[order], 0) :]
    people, starts, sizes = np.unique(
        labels[order], return_index=True, return_counts=True
    )
    several = np.flatnonzero(sizes > 1)
    if len(people) < 2 or not several.size or count < 2 or count % 2:
        raise ValueError(
            "sample_pairs: there must be two identities, one of them with two images, "
            f"and an even number of pairs; got {len(people)} identities, "
            f"{several.size} with two images, and {count}; choose more rows"
        )
    rng = np.random.default_rng(seed)

    def images(person: np.ndarray) -> np.ndarray:
        return starts[person] + (rng.random(len(person)) * sizes[person]).astype(int)

    half = count // 2
    person = rng.choice(several, half)
    one = images(person)
    # A step of 1 .. size - 1 around the identity's images never meets the same one.
    step = 1 + (rng.random(half) * (sizes[person] - 1)).astype(int)
    two = starts[person] + (one - starts[person] + step) % sizes[person]
    person = rng.integers(len(people), size=half)
    other = (person + rng.integers(1, len(people), size=half)) % len(people)
    first = np.stack([one, images(person)], axis=1).ravel()
    second = np.stack([two, images(other)], axis=1).ravel()
    return Pairs(order[first], order[second], np.tile([True, False], half))
