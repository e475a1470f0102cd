"""The ROC of pairs and what is read from it: TAR at FAR, EER, AUC.

A pair is accepted where its score is at least the threshold. TAR is the share of
genuine pairs accepted, FAR that of impostor pairs.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike

from kprpe_jax.evaluation.scores import checked_scores

FARS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)  # that protocols state
POINTS = ("all", "thinned")
CHOICES = ("within", "nearest")


class Roc(NamedTuple):
    """Points of the curve, from accepting nothing (threshold inf) to accepting all.

    Attributes:
      far, tar: float64 [M], both ascending.
      threshold: float64 [M], descending; one point per distinct score.
    """

    far: np.ndarray
    tar: np.ndarray
    threshold: np.ndarray


def roc_curve(scores: ArrayLike, same: ArrayLike, *, points: str = "all") -> Roc:
    """ROC of pairs; tied scores move together.

    Args:
      scores: [P], larger = more alike, finite.
      same: bool [P], True = genuine.
      points: `all`, or `thinned`: without the points that scikit-learn's default
        drops, where neither count changes its slope. The official IJB evaluations
        read this one, which can move their TAR at FAR.
    Raises: ValueError: scores that are not finite, one kind of pairs only, unknown
      `points`.
    """
    scores, same = checked_scores("roc_curve", scores, same)
    if points not in POINTS:
        raise ValueError(f"roc_curve: unknown points {points!r}; use one of {POINTS}.")
    order = np.argsort(-scores, kind="stable")
    ranked, genuine = scores[order], np.cumsum(same[order])
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)  # of each tie
    accepted, impostor = genuine[last], last + 1 - genuine[last]
    if points == "thinned" and len(last) > 2:
        bends = (np.diff(accepted, 2) != 0) | (np.diff(impostor, 2) != 0)
        keep = np.r_[True, bends, True]
        last, accepted, impostor = last[keep], accepted[keep], impostor[keep]
    return Roc(
        far=np.r_[0, impostor] / (~same).sum(),
        tar=np.r_[0, accepted] / same.sum(),
        threshold=np.r_[np.inf, ranked[last]],
    )


def resolved_rates(
    rates: Sequence[float] | np.ndarray, impostors: int
) -> tuple[float, ...]:
    """Of wanted rates of false alarms those of at least one alarm in this number."""
    return tuple(rate for rate in rates if rate * impostors >= 1)


class TarAtFar(NamedTuple):
    """TAR at each wanted FAR, with the point it was read at.

    Attributes:
      tar: float64 [F].
      far: float64 [F], that of the point; 0 where there are fewer than 1 / FAR
        impostor pairs.
      threshold: float64 [F]; inf where no genuine pair scores above all impostors.
    """

    tar: np.ndarray
    far: np.ndarray
    threshold: np.ndarray


def tar_at_far(
    roc: Roc, fars: Sequence[float] | np.ndarray, *, choose: str = "within"
) -> TarAtFar:
    """Read TAR at given FARs, without interpolation.

    Args:
      roc: from `roc_curve`.
      fars: wanted, in [0, 1].
      choose: `within`: the largest TAR whose FAR is at most the wanted one; `nearest`:
        the point whose FAR is nearest, the larger one at a tie, as the official IJB
        evaluations do; it may exceed what was wanted.
    Raises: ValueError: unknown `choose`, a FAR outside [0, 1].
    """
    fars = np.asarray(fars, np.float64)
    if choose not in CHOICES:
        raise ValueError(
            f"tar_at_far: unknown choice {choose!r}; use one of {CHOICES}."
        )
    if not ((fars >= 0) & (fars <= 1)).all():
        raise ValueError(f"tar_at_far: fars must lie in [0, 1]; got {fars.tolist()}.")
    if choose == "within":
        at = np.searchsorted(roc.far, fars, side="right") - 1
    else:
        far_from = np.abs(roc.far[None, ::-1] - fars[:, None])
        at = len(roc.far) - 1 - far_from.argmin(-1)
    return TarAtFar(roc.tar[at], roc.far[at], roc.threshold[at])


def equal_error_rate(roc: Roc) -> float:
    """FAR where it equals 1 - TAR, linear between the two points around it."""
    excess = roc.far - (1.0 - roc.tar)  # ascends from -1 to 1
    after = int(np.argmax(excess >= 0))
    low, high = excess[after - 1], excess[after]
    share = -low / (high - low)
    return float(roc.far[after - 1] + share * (roc.far[after] - roc.far[after - 1]))


def area_under_curve(roc: Roc) -> float:
    """Probability that a genuine pair scores above an impostor pair, ties count half.

    Exact on all points, by the trapezoid rule.
    """
    return float(np.trapezoid(roc.tar, roc.far))
