"""Identification: rank-k, and open set by thresholds on false alarms.

A probe is mated if the gallery holds its identity. What a protocol needs of a search is
an `Outcome`; `outcome_of_search` takes it from a streamed search, `outcome_of_scores`
from a whole score matrix.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike

from kprpe_jax.core.checks import finite
from kprpe_jax.evaluation.scores import genuine
from kprpe_jax.matching.nearest import SearchResult

RULES = ("within", "rounded")


class Outcome(NamedTuple):
    """What became of each probe.

    Attributes:
      mated: bool [P].
      mate_score: float32 [P], best score with the own identity; -inf if not mated.
      mate_rank: int [P], gallery rows ahead of that mate, 0 = found first; `depth`
        where it is not among so many, as for probes without mate.
      best_score: float32 [P], best score with anyone.
      depth: gallery rows whose order is known: the k of a search, or all.
    """

    mated: np.ndarray
    mate_score: np.ndarray
    mate_rank: np.ndarray
    best_score: np.ndarray
    depth: int


def outcome_of_search(found: SearchResult, probe_ids: ArrayLike) -> Outcome:
    """What a search says of each probe; ranks are known up to its k."""
    hits = found.ids == np.asarray(probe_ids)[:, None]
    depth = hits.shape[1]
    rank = np.where(hits.any(-1), hits.argmax(-1), depth)
    mated = np.isfinite(found.mate_score)
    return Outcome(mated, found.mate_score, rank, found.scores[:, 0], depth)


def outcome_of_scores(scores: ArrayLike, same: ArrayLike) -> Outcome:
    """What a score matrix says of each probe; the lower gallery row first at a tie.

    Args:
      scores: [P, G], finite.
      same: bool [P, G], True = the same identity.
    Raises: ValueError: shapes differ, an empty gallery, scores that are not finite.
    """
    name = "outcome_of_scores"
    scores, same = finite(name, scores), genuine(name, same)
    if scores.ndim != 2 or scores.shape != same.shape or not scores.size:
        raise ValueError(
            "outcome_of_scores: scores and same must be matrices of one shape with at "
            f"least one probe and one gallery row; got {scores.shape} and {same.shape}."
        )
    mated = same.any(-1)
    own = np.where(same, scores, -np.inf)
    mate = own.argmax(-1)
    mate_score = own.max(-1)
    earlier = np.arange(scores.shape[1]) < mate[:, None]
    ahead = (scores > mate_score[:, None]) | ((scores == mate_score[:, None]) & earlier)
    depth = scores.shape[1]
    rank = np.where(mated, ahead.sum(-1), depth)
    return Outcome(mated, mate_score, rank, scores.max(-1), depth)


def rank_accuracy(outcome: Outcome, ranks: Sequence[int]) -> np.ndarray:
    """Share of mated probes with a mate among the first k (closed set, CMC).

    Args:
      outcome: of all probes; those without mate are left out.
      ranks: k >= 1, up to the k of the search.
    Returns: float64 [R].
    Raises: ValueError: no probe is mated; a k that is less than 1, or that the search
      did not reach.
    """
    mated = _some("rank_accuracy", outcome.mated, "with a mate")
    _check_ranks("rank_accuracy", outcome, ranks)
    return np.array([(outcome.mate_rank[mated] < k).mean() for k in ranks])


class OpenSet(NamedTuple):
    """Result of `open_set`.

    Attributes:
      tpir: float64 [F, R], share of mated probes found.
      fpir: float64 [F], measured share of probes without mate that raise an alarm.
      threshold: float64 [F]; a score at or above it is accepted.
    """

    tpir: np.ndarray
    fpir: np.ndarray
    threshold: np.ndarray


def open_set(
    outcome: Outcome,
    fpirs: Sequence[float],
    *,
    ranks: Sequence[int | None] = (None,),
    rule: str = "within",
) -> OpenSet:
    """TPIR at FPIR; with ranks, detection and identification rate (DIR) at FAR.

    Args:
      outcome: of probes with and without mate.
      fpirs: wanted shares of false alarms, in [0, 1].
      ranks: a mate counts if its score is accepted and it is among the first k; None:
        at whatever rank.
      rule: of `alarm_threshold`.
    Raises: ValueError: no probe is mated, or all are; ranks as `rank_accuracy`.
    """
    mated = _some("open_set", outcome.mated, "with a mate")
    _check_ranks("open_set", outcome, [k for k in ranks if k is not None])
    strangers = outcome.best_score[_some("open_set", ~outcome.mated, "without a mate")]
    threshold = np.array(
        [alarm_threshold(strangers, rate, rule=rule) for rate in fpirs]
    )
    accepted = outcome.mate_score[mated] >= threshold[:, None]  # [F, P]
    rank = outcome.mate_rank[mated]
    tpir = [(accepted & (k is None or rank < k)).mean(-1) for k in ranks]
    return OpenSet(
        tpir=np.stack(tpir, -1),
        fpir=(strangers >= threshold[:, None]).mean(-1),
        threshold=threshold,
    )


def alarm_threshold(
    impostors: ArrayLike, rate: float, *, rule: str = "within"
) -> float:
    """Threshold that the wanted share of impostor scores reaches.

    Args:
      impostors: float [n], at least one, finite.
      rate: in [0, 1].
      rule: `within`: the lowest threshold that at most this share reaches; `rounded`:
        the official TinyFace rule: the n-th highest score for the rounded number n, or
        1e-5 above the highest for n = 0; ties may let more than n through.
    Raises: ValueError: no scores, scores that are not finite, rate outside [0, 1],
      unknown rule.
    """
    if rule not in RULES:
        raise ValueError(f"alarm_threshold: unknown rule {rule!r}; use one of {RULES}.")
    impostors = np.sort(finite("alarm_threshold", impostors))[::-1]
    if not 0 <= rate <= 1 or not len(impostors):
        raise ValueError(
            "alarm_threshold: rate must lie in [0, 1] and there must be scores; got "
            f"{rate} and {len(impostors)} scores."
        )
    if rule == "rounded":
        count = round(len(impostors) * rate)
        return impostors[count - 1] if count else impostors[0] + 1e-5
    allowed = np.searchsorted(
        np.arange(1, len(impostors) + 1) / len(impostors), rate, "right"
    )
    if allowed == len(impostors):
        return -np.inf
    return np.nextafter(impostors[allowed], np.inf)


def mate_recall_at_false_matches(
    scores: ArrayLike, same: ArrayLike, rates: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """The "TPIR at FPIR" that the official IJB scripts print, another quantity.

    ceil(rate * probes) false matches may occur among all scores of all probes with
    others than their mates; recall is the share of probes whose mate scores above.

    Args:
      scores: [P, G], finite.
      same: bool [P, G]; every probe has exactly one mate.
      rates: false matches per probe.
    Returns: recall, threshold: float64 [R].
    Raises: ValueError: a probe without or with several mates; more false matches
      allowed than there are scores.
    """
    outcome, same = outcome_of_scores(scores, same), np.asarray(same, bool)
    if (same.sum(-1) != 1).any():
        raise ValueError(
            "mate_recall_at_false_matches: every probe must have exactly one mate; got "
            f"{(same.sum(-1) != 1).sum()} that do not; use `open_set`."
        )
    others = np.sort(np.asarray(scores)[~same])[::-1]
    counts = np.ceil(len(same) * np.asarray(rates, np.float64)).astype(int)
    if counts.min() < 1 or counts.max() > len(others):
        raise ValueError(
            "mate_recall_at_false_matches: rates must allow between 1 and "
            f"{len(others)} false matches; got {counts.tolist()}."
        )
    threshold = others[counts - 1]
    return (outcome.mate_score > threshold[:, None]).mean(-1), threshold


def _check_ranks(name: str, outcome: Outcome, ranks: Sequence[int]) -> None:
    """Refuse ranks that the outcome does not know."""
    rank = outcome.mate_rank[outcome.mated]
    # Where every mate was found, all ranks are known.
    most = outcome.depth if (rank >= outcome.depth).any() else np.inf
    if any(not 1 <= k <= most for k in ranks):
        raise ValueError(
            f"{name}: ranks must lie between 1 and the number of rows that the search "
            f"kept, {outcome.depth}; got {list(ranks)}; search with a larger k."
        )


def _some(name: str, chosen: np.ndarray, kind: str) -> np.ndarray:
    if not chosen.any():
        raise ValueError(
            f"{name}: there must be probes {kind}; got none among {len(chosen)}; check "
            "the identities of probes and gallery."
        )
    return chosen
