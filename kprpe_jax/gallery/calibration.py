"""The threshold at which few strangers are named in a search of a whole gallery.

A stranger's best cosine with the gallery is the largest of as many impostor cosines as
there are entries. The gallery's own people tell how large it gets: each is searched
among the others. The share of strangers that a threshold names is of the search, not
of a pair: it holds for this gallery and must be found anew as the gallery grows.
"""

from typing import NamedTuple

import numpy as np
from scipy import stats

from kprpe_jax.gallery.header import GalleryContents
from kprpe_jax.gallery.thresholds import MeasuredThreshold

FAR = 0.02
_PROBES = 512  # entries that are searched among the others
_BLOCK = 16  # of them at once
# People from which the quantile is counted, and below which another data set's
# calibration is worth more than the few own scores. `benchmarks strangers` measures it.
_COUNTED, _FEW = 500, 20
_EULER = 0.5772


class Calibration(NamedTuple):
    """A threshold of the cosine.

    Attributes:
      threshold: a best cosine below it is a stranger's; None: nothing separates people,
        or nothing is known, and the best one is named.
      far: share of strangers that a search names; None = unknown.
      source: what it was found from, in words.
      named: share of the entries that their own people's other entries name at the
        threshold; None = each person has one.
    """

    threshold: float | None
    far: float | None
    source: str
    named: float | None = None


def calibrate(
    contents: GalleryContents,
    far: float = FAR,
    published: MeasuredThreshold | None = None,
) -> Calibration:
    """Find the threshold at which a share of strangers is named.

    With 500 people or more it is the quantile of their scores against the others. With
    fewer it is the larger one of two extrapolations: of a Gumbel distribution of these
    best scores, and of Student's distribution of all impostor scores, which serves few
    people. Both are of angles between embeddings: a network whose embeddings all lie in
    a narrow cone (dlib's have cosines of 0.8 to 1) has skewed cosines, which end at 1,
    but not skewed angles. Below 20 people the published calibration of the network is
    taken, if there is one that names no more strangers.

    Source: ours; measured by `python -m benchmarks strangers` (docs/open_set.md).
    Args:
      contents: of the gallery.
      far: share of strangers named, in (0, 1).
      published: the recognizer's, of `measured_threshold`.
    Raises: ValueError: far out of its range; embeddings that are not finite or zero.
    """
    if not 0 < far < 1:
        raise ValueError(f"--far must lie between 0 and 1; got {far}.")
    people, labels = np.unique(contents.people, return_inverse=True)
    size = len(labels)
    if len(people) < _FEW and published is not None:
        share = 1 - (1 - published.false_acceptance_rate) ** size
        if share <= far or len(people) < 3:
            source = f"{published.data}, as the gallery has {_count(len(people))}"
            return Calibration(published.threshold, share, source)
    if len(people) < 3:
        why = f"{_count(len(people))} and no published threshold"
        return Calibration(None, None, why)
    found = _search(contents.features.embeddings, labels)
    best, own = found.best, found.own
    source = f"the best impostor scores of {_count(len(people))}"
    if len(people) >= _COUNTED:
        threshold = np.sort(best)[-(int(far * len(best)) + 1)]
    else:
        few = _student_angle(found, far, size, len(people))
        angle = min(few, _gumbel_angle(_angles(best), far, len(people)))
        threshold = np.cos(angle) if angle > 0 else 1.0
    # Above: what reaches it is not below it.
    threshold = float(np.nextafter(np.float32(threshold), np.float32(2)))
    named = float((own >= threshold).mean()) if len(own) else None
    if threshold >= 1 or (named is not None and named < 0.5):
        why = f"{source}, which are as high as those of one person"
        return Calibration(None, None, why, named)
    return Calibration(threshold, far, source, named)


class _Scores(NamedTuple):
    """Cosines of some entries with all.

    Attributes:
      mean, std: of the angles with other people's entries, in radians.
      count: of them.
      best: [P], the largest with another person's entry.
      own: the largest with another entry of the same person, where there is one.
    """

    mean: float
    std: float
    count: int
    best: np.ndarray
    own: np.ndarray


def _search(embeddings: np.ndarray, labels: np.ndarray) -> _Scores:
    """Search some entries among all, few at a time: a gallery may be large."""
    if embeddings.ndim != 2 or len(embeddings) != len(labels):
        raise ValueError(
            f"gallery: there must be an embedding for each of the {len(labels)} "
            f"entries; got an array of {embeddings.shape}."
        )
    norms = np.linalg.norm(embeddings, axis=1)
    bad = np.flatnonzero(~((norms > 0) & (norms < np.inf)))
    if len(bad):
        raise ValueError(
            f"gallery: the embedding of each entry must be finite and not zero; got "
            f"{len(bad)} others, the first in row {bad[0]}."
        )
    order = np.argsort(labels, kind="stable")
    bounds = np.searchsorted(labels[order], np.arange(labels.max() + 2))
    probes = np.unique(np.linspace(0, len(norms) - 1, _PROBES).astype(int))
    best, own, sums = [], [], np.zeros(3)
    for rows in np.split(probes, range(_BLOCK, len(probes), _BLOCK)):
        scores = (embeddings[rows] / norms[rows, None]) @ embeddings.T
        scores /= norms
        for row, line in zip(rows, scores, strict=True):
            same = order[slice(*bounds[labels[row] : labels[row] + 2])]
            if len(same) > 1:
                own.append(line[same[same != row]].max())
            angles = np.delete(_angles(line), same)
            sums += len(angles), angles.sum(dtype=float), angles @ angles
            line[same] = -np.inf
            best.append(line.max())
    count, total, squares = sums
    mean = total / count
    std = np.sqrt(max(squares - count * mean**2, 0.0) / max(count - 1, 1))
    return _Scores(mean, std, int(count), np.array(best), np.array(own))


def _angles(cosines: np.ndarray) -> np.ndarray:
    return np.arccos(np.clip(cosines, -1, 1))


def _gumbel_angle(best: np.ndarray, far: float, people: int) -> float:
    """Quantile of a Gumbel distribution with the moments of the smallest angles."""
    scale = best.std(ddof=1) * np.sqrt(6) / np.pi
    at = -np.log(-np.log1p(-far))
    # The share named is exp(-at) on average only if the error of the quantile, whose
    # variance is scale^2 (1.1 + 0.5 at + 0.6 at^2) / people, is paid for.
    at += (1.1 + 0.5 * at + 0.6 * at**2) / (2 * people)
    return float(best.mean() - scale * (at - _EULER))


def _student_angle(scores: _Scores, far: float, size: int, people: int) -> float:
    """Quantile of the smallest of `size` impostor angles; people are independent."""
    share = -np.expm1(np.log1p(-far) / size)
    width = scores.std * np.sqrt(1 + 1 / scores.count)
    return float(scores.mean - stats.t.isf(share, people - 1) * width)


def _count(people: int) -> str:
    return f"{people} {'person' if people == 1 else 'people'}"
