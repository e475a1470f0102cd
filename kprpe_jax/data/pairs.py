"""Pairs of images to train on: an endless stream of them, and both images as one row.

A pair is one number, first * rows + second, so that the loader cuts batches out of a
stream of pairs as it does of any other.
"""

from collections.abc import Sequence
from functools import lru_cache

import grain
import numpy as np

from kprpe_jax.data.rows import RandomAccessRows


def paired(labels: np.ndarray, *, seed: int) -> grain.MapDataset:
    """Pairs in turn of one person and of two.

    Every person with two images comes once per epoch of genuine pairs, everybody once
    per epoch of impostor pairs, in a new order each; the images, and who the other
    person is, are sampled anew. Place t depends on the seed and t alone.

    Source: Face-ViT, Sec. 4.3: half positives, half negatives, of all identities.
    Args:
      labels: int [N] of all rows; rows with a label < 0 are left out.
      seed: 0 <= seed < 2**32.
    Returns: endless stream of numbers of pairs, for `PairRows`.
    Raises: ValueError: fewer than two people, no person with two images.
    """
    order = np.argsort(labels, kind="stable")
    order = order[np.searchsorted(labels[order], 0) :]
    starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    people = np.split(order, starts[1:]) if starts.size else []
    several = [rows for rows in people if len(rows) > 1]
    if len(people) < 2 or not several:
        raise ValueError(
            "paired: pairs need two people and one with two images; got "
            f"{len(people)} people, {len(several)} with two images; take more people"
        )
    return grain.MapDataset.source(_Paired(people, several, len(labels), seed))


class _Paired:
    def __init__(
        self,
        people: list[np.ndarray],
        several: list[np.ndarray],
        num_rows: int,
        seed: int,
    ):
        self._arguments = people, several, num_rows, seed
        self._epoch = lru_cache(4)(self._permute)

    def __len__(self) -> int:
        return 2**40  # pairs; grain wants an end

    def __getitem__(self, place: int) -> int:
        people, several, num_rows, seed = self._arguments
        turn, impostor = divmod(int(place), 2)
        rng = np.random.default_rng([seed, 3, int(place)])
        group = people if impostor else several
        epoch, at = divmod(turn, len(group))
        person = self._epoch(impostor, epoch)[at]
        if not impostor:
            first, second = rng.choice(group[person], 2, replace=False)
        else:
            other = (person + rng.integers(1, len(group))) % len(group)
            first, second = (rng.choice(group[p]) for p in (person, other))
        return int(first) * num_rows + int(second)

    def _permute(self, impostor: int, epoch: int) -> np.ndarray:
        _, seed = self._arguments[2:]
        rng = np.random.default_rng([seed, 4 + impostor, epoch])
        return rng.permutation(len(self._arguments[0 if impostor else 1]))

    def __reduce__(self):  # worker processes make their own cache
        return _Paired, self._arguments


class PairRows(RandomAccessRows):
    """Rows of two images each: every field [2, ...], but `id`, that of the first.

    The second's is `second_id`.

    Args:
      source: N rows with random access.
      pairs: int [P], the numbers of those to show; None: place i is pair number i, and
        the length, N / 2, is how many pairs show every image once.
    """

    def __init__(self, source: Sequence, pairs: np.ndarray | None = None):
        self._source, self._pairs = source, pairs

    def __len__(self) -> int:
        return len(self._source) // 2 if self._pairs is None else len(self._pairs)

    def __getitems__(self, pairs: Sequence[int]) -> list[dict[str, np.ndarray]]:
        """Return several pairs with one read."""
        if self._pairs is not None:
            pairs = [int(self._pairs[pair]) for pair in pairs]
        rows = [row for pair in pairs for row in divmod(int(pair), len(self._source))]
        read = self._source.__getitems__(rows)
        return [
            {
                **{key: np.stack([one[key], two[key]]) for key in one if key != "id"},
                "id": one["id"],
                "second_id": two["id"],
            }
            for one, two in zip(read[::2], read[1::2], strict=True)
        ]
