"""Verification over folds: the protocol of LFW, CFP-FP, AgeDB, CALFW and CPLFW.

The threshold of each fold is chosen on the other folds. The official evaluators embed a
pair's image as the sum of the raw embeddings of the image and of its mirror image.
"""

from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike

from kprpe_jax.core.checks import finite
from kprpe_jax.evaluation.scores import checked_scores, pair_distance

THRESHOLDS = ("grid", "exact")


class FoldAccuracy(NamedTuple):
    """Accuracy of `fold_accuracy`.

    Attributes:
      mean, std: over the folds, in [0, 1]; the deviation is that of the population.
      accuracy: float64 [F], of each fold held out.
      threshold: float64 [F], squared distance chosen on the other folds.
    """

    mean: float
    std: float
    accuracy: np.ndarray
    threshold: np.ndarray


def fold_accuracy(
    distances: ArrayLike,
    same: ArrayLike,
    *,
    num_folds: int = 10,
    thresholds: str = "grid",
) -> FoldAccuracy:
    """Accuracy with thresholds from the other folds; accepted where distance < it.

    Args:
      distances: float [P], squared, in [0, 4], from `pair_distance`; or [F, P], row f
        as seen with fold f held out, from `centered_distances`.
      same: bool [P]; folds are contiguous, their sizes differ by at most one.
      num_folds: F.
      thresholds: `grid`: 0, 0.01, ... 3.99 as in the official code, whose results the
        papers state; `exact`: half way between neighboring distances. The smallest of
        the best is taken.
    Raises: ValueError: distances that are not finite, one kind of pairs only, fewer
      pairs than folds, unknown `thresholds`.
    """
    distances, same = _per_fold("fold_accuracy", distances, same, num_folds)
    if thresholds not in THRESHOLDS:
        raise ValueError(
            f"fold_accuracy: unknown thresholds {thresholds!r}; use one of "
            f"{THRESHOLDS}."
        )
    accuracy, chosen = [], []
    for row, test in zip(distances, _folds(len(same), num_folds), strict=True):
        train = np.ones(len(same), bool)
        train[test] = False
        grid = np.arange(0, 4, 0.01)
        if thresholds == "exact":
            grid = _midpoints(row[train])
        genuine, impostor = _accepted(row[train], same[train], grid)
        right = genuine + (~same[train]).sum() - impostor
        best = grid[right.argmax()]
        chosen.append(best)
        accuracy.append(((row[test] < best) == same[test]).mean())
    return FoldAccuracy(
        float(np.mean(accuracy)),
        float(np.std(accuracy)),
        *map(np.array, (accuracy, chosen)),
    )


def centered_distances(
    first: ArrayLike, second: ArrayLike, *, num_folds: int = 10
) -> np.ndarray:
    """Distances after subtracting the mean embedding of the training folds.

    Args:
      first, second: [P, D], not normalized.
      num_folds: F.
    Returns: float32 [F, P]; row f uses no embedding of fold f for its mean.
    Raises: ValueError: an embedding that is not finite.
    """
    first = finite("centered_distances", first)
    second = finite("centered_distances", second)
    rows = []
    for test in _folds(len(first), num_folds):
        train = np.delete(np.arange(len(first)), test)
        mean = np.concatenate([first[train], second[train]]).mean(0, dtype=np.float64)
        mean = mean.astype(np.float32)
        rows.append(np.asarray(pair_distance(first - mean, second - mean)))
    return np.stack(rows)


def best_accuracy(scores: ArrayLike, same: ArrayLike) -> tuple[float, float]:
    """Largest accuracy over thresholds at the genuine scores, without folds.

    Returns: accuracy; the mean of the thresholds that reach it. Optimistic, since the
      threshold is chosen on the pairs that it is judged by.
    """
    scores, same = checked_scores("best_accuracy", scores, same)
    grid = np.sort(scores[same])
    genuine, impostor = _accepted(-scores, same, np.nextafter(-grid, np.inf))
    accuracy = (genuine + (~same).sum() - impostor) / len(same)
    return float(accuracy.max()), float(grid[accuracy == accuracy.max()].mean())


def fold_roc(
    distances: ArrayLike,
    same: ArrayLike,
    thresholds: np.ndarray,
    *,
    num_folds: int = 10,
) -> tuple[np.ndarray, np.ndarray]:
    """TAR and FAR at each threshold, means over the folds.

    A fold without pairs of a kind counts as 0 for that kind's rate.

    Args:
      distances, same, num_folds: as `fold_accuracy`.
      thresholds: [T], ascending squared distances.
    Returns: tar, far: float64 [T].
    """
    distances, same = _per_fold("fold_roc", distances, same, num_folds)
    folds = _folds(len(same), num_folds)
    rates = [
        _rates(row[test], same[test], thresholds)
        for row, test in zip(distances, folds, strict=True)
    ]
    return tuple(np.mean(rates, axis=0))


def fold_tar_at_far(
    distances: ArrayLike, same: ArrayLike, *, far: float = 1e-3, num_folds: int = 10
) -> tuple[float, float, float]:
    """TAR where the other folds' FAR is as wanted; the old VAL @ FAR of LFW tables.

    The threshold is linear between the points of a grid of 0.001 around the wanted FAR;
    0 where the other folds never reach it.

    Args:
      distances, same, num_folds: as `fold_accuracy`.
      far: wanted, in (0, 1].
    Returns: mean and population deviation of TAR over the folds; mean measured FAR.
    Raises: ValueError: far outside (0, 1]; as `fold_accuracy`.
    """
    if not 0 < far <= 1:
        raise ValueError(f"fold_tar_at_far: far must lie in (0, 1]; got {far}.")
    distances, same = _per_fold("fold_tar_at_far", distances, same, num_folds)
    grid = np.arange(0, 4, 0.001)
    rates = []
    for row, test in zip(distances, _folds(len(same), num_folds), strict=True):
        train = np.delete(np.arange(len(same)), test)
        curve = _rates(row[train], same[train], grid)[1]
        threshold = 0.0
        if curve.max() >= far:
            after = np.searchsorted(curve, far, side="right")
            # At the end of the curve there is nothing above to interpolate to.
            ends = slice(max(after - 1, 0), after + 1)
            threshold = np.interp(far, curve[ends], grid[ends])
        rates.append(_rates(row[test], same[test], np.array([threshold])))
    tar, measured = np.array(rates)[..., 0].T
    return float(tar.mean()), float(tar.std()), float(measured.mean())


def _per_fold(
    name: str, distances: ArrayLike, same: ArrayLike, num_folds: int
) -> tuple[np.ndarray, np.ndarray]:
    """Distances as [F, P], and labels."""
    rows = np.atleast_2d(np.asarray(distances))
    if len(rows) not in (1, num_folds):
        raise ValueError(
            f"{name}: distances must be [P], or [F, P] with one row for each of the "
            f"{num_folds} folds; got {rows.shape}."
        )
    for row in rows:
        _, same = checked_scores(name, row, same)
    if not 2 <= num_folds <= len(same):
        raise ValueError(
            f"{name}: num_folds must lie between 2 and the number of pairs, "
            f"{len(same)}; got {num_folds}."
        )
    return np.broadcast_to(rows, (num_folds, len(same))), same


def _folds(count: int, num_folds: int) -> list[np.ndarray]:
    return np.array_split(np.arange(count), num_folds)


def _midpoints(distances: np.ndarray) -> np.ndarray:
    """One threshold below, between and above all distinct distances."""
    values = np.unique(distances.astype(np.float64))
    return np.r_[values[0] - 1e-3, (values[1:] + values[:-1]) / 2, values[-1] + 1e-3]


def _accepted(
    distances: np.ndarray, same: np.ndarray, thresholds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """How many genuine and impostor pairs lie below each threshold."""
    return tuple(
        np.searchsorted(np.sort(distances[same == kind]), thresholds, side="left")
        for kind in (True, False)
    )


def _rates(
    distances: np.ndarray, same: np.ndarray, thresholds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    genuine, impostor = _accepted(distances, same, thresholds)
    return genuine / max(same.sum(), 1), impostor / max((~same).sum(), 1)
