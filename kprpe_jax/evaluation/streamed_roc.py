"""TAR at FAR of any number of pairs, exactly, in a few megabytes.

The bits of a float32, turned so that they sort like the numbers, are counted in two
passes: first their upper halves, which tells in which bin each threshold lies, then the
lower halves inside these bins. Two passes over scores that are computed twice beat one
histogram with an error bound: the result is that of `roc_curve` on all scores.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from kprpe_jax.core.checks import finite
from kprpe_jax.evaluation.roc import TarAtFar
from kprpe_jax.evaluation.scores import genuine

_BINS = 1 << 16


def stream_tar_at_far(
    chunks: Callable[[], Iterable[tuple[np.ndarray, np.ndarray]]],
    fars: Sequence[float] | np.ndarray,
) -> TarAtFar:
    """The same as `tar_at_far(roc_curve(...), fars)`, from scores in chunks.

    Uses 1 MiB per FAR and 1 MiB more besides the chunk.

    Args:
      chunks: called twice; each time gives the same pairs as (scores, same): float32
        [n] (wider ones are rounded) and bool [n].
      fars: wanted, in [0, 1).
    Raises: ValueError: a FAR outside [0, 1), scores that are not finite, one kind of
      pairs only, or another number of pairs in the second pass.
    """
    fars = np.asarray(fars, np.float64)
    if not ((fars >= 0) & (fars < 1)).all():
        raise ValueError(
            f"stream_tar_at_far: fars must lie in [0, 1); got {fars.tolist()}."
        )
    upper = np.zeros((2, _BINS), np.int64)  # impostor, genuine
    for codes, same in _codes(chunks()):
        upper += _count(codes >> 16, same)
    impostors, genuines = upper.sum(-1)
    if not impostors or not genuines:
        raise ValueError(
            "stream_tar_at_far: there must be both genuine and impostor pairs; got "
            f"{genuines} and {impostors}; add pairs of the missing kind."
        )
    # The highest impostor score that must be refused is number `allowed` from the top.
    allowed = np.array([_allowed(far, impostors) for far in fars], np.int64)
    above = _above(upper)  # [2, bins]: pairs in higher bins
    bins = np.array([np.flatnonzero(above[0] <= n)[0] for n in allowed], np.int64)

    lower = np.zeros((len(fars), 2, _BINS), np.int64)
    next_code = np.full(len(fars), 1 << 32, np.int64)  # lowest one in a higher bin
    seen = 0
    for codes, same in _codes(chunks()):
        seen += len(codes)
        high = codes >> 16
        for i, bin_ in enumerate(bins):
            inside = high == bin_
            lower[i] += _count(codes[inside] & 0xFFFF, same[inside])
            next_code[i] = codes.min(initial=next_code[i], where=high > bin_)
    if seen != impostors + genuines:
        raise ValueError(
            "stream_tar_at_far: chunks must give the same pairs twice; got "
            f"{impostors + genuines} and then {seen}; return a fresh iterator each "
            "time."
        )

    rows = []
    for i, bin_ in enumerate(bins):
        inside = _above(lower[i])
        refused = np.flatnonzero(above[0, bin_] + inside[0] <= allowed[i])[0]
        false, true = above[:, bin_] + inside[:, refused]
        higher = np.flatnonzero(lower[i].sum(0)[refused + 1 :])
        code = next_code[i]
        if higher.size:
            code = (int(bin_) << 16) + refused + 1 + higher[0]
        rows.append((true / genuines, false / impostors, _score(code)))
    tar, far, threshold = np.array(rows, np.float64).reshape(-1, 3).T
    return TarAtFar(tar, far, threshold)


def _codes(chunks: Iterable) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """Scores as integers in [0, 2^32) that sort like them."""
    name, start = "stream_tar_at_far", 0
    for scores, same in chunks:
        scores = finite(name, scores, start=start).astype(np.float32)
        start += len(scores)
        bits = (scores + np.float32(0)).view(np.uint32)  # -0 becomes 0
        codes = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
        yield codes.astype(np.int64), genuine(name, same)


def _score(code: int) -> float:
    if code == 1 << 32:
        return np.inf
    bits = code - (1 << 31) if code >> 31 else code ^ 0xFFFFFFFF
    return float(np.uint32(bits).view(np.float32))


def _count(bins: np.ndarray, same: np.ndarray) -> np.ndarray:
    return np.stack(
        [np.bincount(bins[same == kind], minlength=_BINS) for kind in (0, 1)]
    )


def _above(counts: np.ndarray) -> np.ndarray:
    """[..., bins] -> how many lie in higher bins."""
    return counts[..., ::-1].cumsum(-1)[..., ::-1] - counts


def _allowed(far: float, impostors: int) -> int:
    """Largest count whose share of the impostors is at most `far`."""
    count = int(far * impostors)
    return count + 1 if (count + 1) / impostors <= far else count
