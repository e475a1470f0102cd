"""Verification of listed pairs, from their embeddings to all numbers."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from kprpe_jax.evaluation.confidence import Interval, bootstrap_interval
from kprpe_jax.evaluation.roc import (
    FARS,
    Roc,
    TarAtFar,
    area_under_curve,
    equal_error_rate,
    resolved_rates,
    roc_curve,
    tar_at_far,
)
from kprpe_jax.evaluation.scores import genuine, pair_distance
from kprpe_jax.evaluation.verification import (
    FoldAccuracy,
    centered_distances,
    fold_accuracy,
)

_RESAMPLES = 1000


class PairResult(NamedTuple):
    """Numbers of a list of pairs.

    Attributes:
      accuracy: by cosine, over the folds.
      interval: of the accuracy at the folds' thresholds, 95 %, pairs resampled.
      centered: accuracy after subtracting the mean embedding of the other folds.
      roc: of all pairs, by cosine.
      fars: those of FARS that the number of impostor pairs can resolve.
      tar: at these.
      eer, auc: of the curve.
      rates: intervals of tar [F], eer and auc, in one array [F + 2], as `interval`.
    """

    accuracy: FoldAccuracy
    interval: Interval
    centered: FoldAccuracy
    roc: Roc
    fars: tuple[float, ...]
    tar: TarAtFar
    eer: float
    auc: float
    rates: Interval


def verify_pairs(
    first: np.ndarray, second: np.ndarray, same: np.ndarray, *, num_folds: int = 10
) -> PairResult:
    """Verify all pairs.

    Args:
      first, second: float32 [P, D], not normalized.
      same: bool [P]; folds are contiguous.
      num_folds: F.
    Raises: ValueError: an embedding that is not finite, pairs of one kind only.
    """
    same = genuine("verify_pairs", same)
    distance = np.asarray(pair_distance(first, second))
    accuracy = fold_accuracy(distance, same, num_folds=num_folds)
    sizes = [len(part) for part in np.array_split(same, num_folds)]
    right = (distance < np.repeat(accuracy.threshold, sizes)) == same
    roc = roc_curve(-distance, same)
    fars = resolved_rates(FARS, (~same).sum())
    return PairResult(
        accuracy=accuracy,
        interval=bootstrap_interval(
            np.mean, right, rng=jax.random.key(0), strata=same, resamples=_RESAMPLES
        ),
        centered=fold_accuracy(
            centered_distances(first, second, num_folds=num_folds),
            same,
            num_folds=num_folds,
        ),
        roc=roc,
        fars=fars,
        tar=tar_at_far(roc, fars),
        eer=equal_error_rate(roc),
        auc=area_under_curve(roc),
        rates=bootstrap_interval(
            lambda scores, same: _rates(roc_curve(scores, same), fars),
            -distance,
            same,
            rng=jax.random.key(1),
            strata=same,
            resamples=_RESAMPLES,
        ),
    )


def _rates(roc: Roc, fars: Sequence[float]) -> np.ndarray:
    rates = tar_at_far(roc, fars).tar
    return np.append(rates, [equal_error_rate(roc), area_under_curve(roc)])


def summary(result: PairResult) -> dict[str, float]:
    """The numbers by name, all in [0, 1] but the thresholds (squared distances).

    `NAME_low` and `NAME_high` are the ends of the 95 % interval of NAME.
    """
    names = [f"tar_at_far_{far:.0e}".replace("e-0", "e-") for far in result.fars]
    rates = {}
    for index, name in enumerate([*names, "eer", "auc"]):
        value, low, high = (float(part[index]) for part in result.rates)
        rates |= {name: value, f"{name}_low": low, f"{name}_high": high}
    return {
        "accuracy": result.accuracy.mean,
        "std": result.accuracy.std,
        "accuracy_low": float(result.interval.low),
        "accuracy_high": float(result.interval.high),
        "threshold": float(result.accuracy.threshold.mean()),
        "centered_accuracy": result.centered.mean,
        "centered_std": result.centered.std,
        **rates,
    }
