"""Gait retrieval as Gait3D counts it: rank-1, -5, -10, mAP and mINP over parts."""

from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike

METRICS = ("euclidean", "cosine")


class GaitMetrics(NamedTuple):
    """Means over the probes that have a match; shares in [0, 1], not percent.

    Attributes:
      rank_1, rank_5, rank_10: a match stands among the first 1, 5, 10.
      mean_ap: mean average precision.
      mean_inp: mean inverse negative penalty.
      ap: float64 [P], AP of each counted probe, in the order of the probes.
      inp: float64 [P], matches / rank of the last match.
      dropped: probes without a match in the gallery, which count nowhere.
    """

    rank_1: float
    rank_5: float
    rank_10: float
    mean_ap: float
    mean_inp: float
    ap: np.ndarray
    inp: np.ndarray
    dropped: int


def part_distances(
    probe: ArrayLike, gallery: ArrayLike, *, metric: str = "euclidean"
) -> np.ndarray:
    """Mean over parts of the distance between the parts of two sequences.

    Source: the evaluation of OpenGait for Gait3D.
    Args:
      probe: float32 [Q, P, D], one embedding per part.
      gallery: float32 [G, P, D].
      metric: `euclidean` is Gait3D's default; `cosine` is 1 - cosine, where an
        embedding of zeros has cosine 0.
    Returns: float32 [Q, G].
    Raises: ValueError: unknown metric; shapes that do not fit; no sequence.
    """
    probe, gallery = np.asarray(probe, np.float32), np.asarray(gallery, np.float32)
    if metric not in METRICS:
        raise ValueError(
            f"part_distances: unknown metric {metric!r}; use one of {METRICS}."
        )
    fits = probe.ndim == gallery.ndim == 3 and probe.shape[1:] == gallery.shape[1:]
    if not fits or not probe.size or not gallery.size:
        raise ValueError(
            "part_distances: probe and gallery must be [Q, P, D] and [G, P, D] with at "
            f"least one sequence each; got {probe.shape} and {gallery.shape}; give "
            "each sequence one embedding per part."
        )
    if metric == "cosine":
        probe, gallery = _unit(probe), _unit(gallery)
    products = [
        p @ g.T for p, g in zip(_by_part(probe), _by_part(gallery), strict=True)
    ]
    if metric == "cosine":
        return 1 - np.mean(products, axis=0)
    squares = np.square(probe).sum(-1).T[:, :, None]  # [P, Q, 1]
    squares = squares + np.square(gallery).sum(-1).T[:, None]
    return np.sqrt(np.maximum(squares - 2 * np.stack(products), 0)).mean(0)


def gait_metrics(
    distances: ArrayLike, probe_ids: ArrayLike, gallery_ids: ArrayLike
) -> GaitMetrics:
    """Rank the gallery for every probe and count.

    No camera or view is left out, as in Gait3D's protocol. Equal distances keep the
    gallery's order.

    Source: KP-RPE, Sec. 5 (metrics); the evaluation of OpenGait for Gait3D.
    Args:
      distances: [Q, G], finite.
      probe_ids: int [Q].
      gallery_ids: int [G].
    Raises: ValueError: shapes that do not fit, a distance that is not finite, no probe
      with a match in the gallery.
    """
    distances = np.asarray(distances)
    probe_ids, gallery_ids = np.asarray(probe_ids), np.asarray(gallery_ids)
    if distances.shape != (*probe_ids.shape, *gallery_ids.shape) or distances.ndim != 2:
        raise ValueError(
            "gait_metrics: distances must be [probes, gallery]; got "
            f"{distances.shape} for ids {probe_ids.shape} and {gallery_ids.shape}; "
            "give one id per row and column."
        )
    if not np.isfinite(distances).all():
        raise ValueError(
            "gait_metrics: distances must be finite; got "
            f"{int((~np.isfinite(distances)).sum())} that are not; look for the "
            "embeddings that are not."
        )
    same = probe_ids[:, None] == gallery_ids
    counted = same.any(1)
    if not counted.any():
        raise ValueError(
            "gait_metrics: at least one probe must have its identity in the gallery; "
            f"got {len(probe_ids)} probes without; check the split of the data."
        )
    order = np.argsort(distances[counted], axis=1, kind="stable")
    hits = np.take_along_axis(same[counted], order, axis=1)
    rank = np.arange(1, hits.shape[1] + 1)
    matches = hits.sum(1)
    ap = (hits * hits.cumsum(1) / rank).sum(1) / matches
    inp = matches / (hits * rank).max(1)
    first = hits.argmax(1)
    within = [float((first < k).mean()) for k in (1, 5, 10)]
    dropped = int((~counted).sum())
    return GaitMetrics(*within, float(ap.mean()), float(inp.mean()), ap, inp, dropped)


def _by_part(embeddings: np.ndarray) -> np.ndarray:
    return embeddings.swapaxes(0, 1)


def _unit(embeddings: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(embeddings, axis=-1, keepdims=True)
    return embeddings / np.where(norm > 0, norm, 1)
