"""Which rows training reads, in which order: endless streams of row numbers.

Place t of a stream depends on the seed and t alone, so any number of processes may cut
batches out of it, from any step on.
"""

import functools

import grain
import numpy as np


def shuffled(num_rows: int, *, seed: int) -> grain.MapDataset:
    """Every row once per epoch, each epoch in a new order.

    Args:
      num_rows: at least 1.
      seed: 0 <= seed < 2**32.
    Returns: endless stream of row numbers.
    Raises: ValueError: no rows.
    """
    if num_rows < 1:
        raise ValueError("shuffled: the source must have rows; got none; check it")
    return grain.MapDataset.range(num_rows).seed(seed).shuffle().repeat()


def balanced(
    labels: np.ndarray, *, images_per_identity: int, seed: int
) -> grain.MapDataset:
    """P identities x K images: K rows of a person, then K of the next.

    Every identity comes once per epoch, in a new order each; its K rows are sampled
    anew, without repetition where it has that many. A batch of P * K rows has P
    identities.

    Args:
      labels: int [N] of all rows; rows with a label < 0 are left out.
      images_per_identity: K >= 1.
      seed: 0 <= seed < 2**32.
    Returns: endless stream of row numbers.
    Raises: ValueError: no row with an identity, K < 1.
    """
    if images_per_identity < 1 or not (labels >= 0).any():
        raise ValueError(
            "balanced: images_per_identity must be at least 1 and some labels >= 0; "
            f"got {images_per_identity} and {int((labels >= 0).sum())} of "
            f"{len(labels)} rows; change data.images_per_identity or the data"
        )
    return grain.MapDataset.source(_Balanced(labels, images_per_identity, seed))


def repeated(
    rows: grain.MapDataset, *, probability: float, seed: int
) -> grain.MapDataset:
    """Repeated augmentation: some rows come twice in a row, to be augmented anew.

    The second row of each pair (0, 1), (2, 3), ... becomes a copy of the first with the
    given probability. How the copies are placed is ours; the paper gives their rate.

    Source: KP-RPE, Supp. 2.1, Table 6; Hoffer et al., Augment your batch, 2020.
    Args:
      rows: stream of row numbers.
      probability: 0..1.
      seed: 0 <= seed < 2**32.
    Raises: ValueError: a probability outside 0..1.
    """
    if not 0 <= probability <= 1:
        raise ValueError(
            f"repeated: probability must lie in 0..1; got {probability}; change "
            "data.repeat_probability"
        )
    return grain.MapDataset.source(_Repeated(rows, probability, seed))


def numbered(rows: grain.MapDataset, *, num_rows: int) -> grain.MapDataset:
    """Tell visits apart: row r at place t becomes r + num_rows * t.

    For sources that sample anew at every visit, such as `gait.Clips`.

    Args:
      rows: stream of row numbers.
      num_rows: of the source, at least 1.
    """
    return grain.MapDataset.source(_Numbered(rows, num_rows))


class _Endless:
    def __len__(self) -> int:
        return 2**40  # rows; grain wants an end


class _Balanced(_Endless):
    def __init__(self, labels: np.ndarray, images: int, seed: int):
        order = np.argsort(labels, kind="stable")
        order = order[np.searchsorted(labels[order], 0) :]
        starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
        self._people = np.split(order, starts[1:])
        self._images, self._seed = images, seed
        self._epoch = functools.lru_cache(2)(self._permute)

    def __getitem__(self, place: int) -> int:
        slot, image = divmod(int(place), self._images)
        epoch, turn = divmod(slot, len(self._people))
        rows = self._people[self._epoch(epoch)[turn]]
        rng = np.random.default_rng([self._seed, 0, slot])
        enough = len(rows) >= self._images
        return int(rng.choice(rows, self._images, replace=not enough)[image])

    def _permute(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self._seed, 1, epoch]).permutation(
            len(self._people)
        )

    def __reduce__(self):  # worker processes make their own cache
        labels = np.full(max(map(np.max, self._people)) + 1, -1)
        for label, rows in enumerate(self._people):
            labels[rows] = label
        return _Balanced, (labels, self._images, self._seed)


class _Repeated(_Endless):
    def __init__(self, rows: grain.MapDataset, probability: float, seed: int):
        self._rows, self._probability, self._seed = rows, probability, seed

    def __getitem__(self, place: int) -> int:
        pair, second = divmod(int(place), 2)
        if second:
            sampled = np.random.default_rng([self._seed, 2, pair]).random()
            second = sampled >= self._probability
        return self._rows[2 * pair + int(second)]


class _Numbered(_Endless):
    def __init__(self, rows: grain.MapDataset, num_rows: int):
        self._rows, self._num_rows = rows, num_rows

    def __getitem__(self, place: int) -> int:
        return self._rows[place] + self._num_rows * int(place)
