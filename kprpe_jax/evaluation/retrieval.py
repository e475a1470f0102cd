"""Retrieval: how well the whole ranking of a gallery serves each query."""

from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike


class Retrieval(NamedTuple):
    """Figures of each query; their means are what tables show.

    Attributes:
      precision_at_1: float64 [Q], 1 = the first found is of the same identity (rank-1).
      r_precision: float64 [Q], share of the identity among the first R.
      map_at_r: float64 [Q], mean over the first R ranks of the precision up to a rank,
        counted where that rank is a hit.
    """

    precision_at_1: np.ndarray
    r_precision: np.ndarray
    map_at_r: np.ndarray


def retrieval(
    found_ids: ArrayLike, query_ids: ArrayLike, relevant: ArrayLike
) -> Retrieval:
    """P@1, R-precision and MAP@R.

    Source: DeepFace-EMD, Sec. 5.1 (M@R); Musgrave et al., A metric learning reality
    check, 2020.
    Args:
      found_ids: int [Q, ranks], identities in the order of the ranking; at least as
        many ranks as the largest R.
      query_ids: int [Q].
      relevant: int [Q], R >= 1, from `count_relevant`.
    Raises: ValueError: shapes that do not fit, a query without relevant image, too few
      ranks.
    """
    found, relevant = np.asarray(found_ids), np.asarray(relevant)
    queries = np.asarray(query_ids)
    count = len(queries)
    fits = found.ndim == 2 and len(found) == count and relevant.shape == (count,)
    if not fits or not count:
        raise ValueError(
            "retrieval: there must be one row of identities and one R per query; got "
            f"{found.shape} and {relevant.shape} for {count} queries."
        )
    if relevant.min() < 1:
        raise ValueError(
            "retrieval: every query must have a relevant image in the gallery; got "
            f"{(relevant < 1).sum()} without; leave these out."
        )
    if relevant.max() > found.shape[1]:
        raise ValueError(
            f"retrieval: there must be {relevant.max()} ranks, the largest R; got "
            f"{found.shape[1]}; ask for a longer ranking."
        )
    hits = found == queries[:, None]
    rank = np.arange(1, found.shape[1] + 1)
    counted = hits & (rank <= relevant[:, None])
    precision = hits.cumsum(1) / rank
    return Retrieval(
        precision_at_1=hits[:, 0].astype(np.float64),
        r_precision=counted.sum(1) / relevant,
        map_at_r=(precision * counted).sum(1) / relevant,
    )


def count_relevant(
    query_ids: ArrayLike, gallery_ids: ArrayLike, *, without_own: bool = False
) -> np.ndarray:
    """R: gallery images of each query's identity.

    Args:
      query_ids: int [Q].
      gallery_ids: int [G].
      without_own: leave out one image per query, its own photo, that stands in the
        gallery and is never found. The thesis counts it, which keeps R-precision and
        MAP@R below 1 when the gallery is the query set.
    Returns: int [Q], 0 where there is none.
    """
    known, counts = np.unique(np.asarray(gallery_ids), return_counts=True)
    queries = np.asarray(query_ids)
    at = np.minimum(np.searchsorted(known, queries), max(len(known) - 1, 0))
    found = np.where(known[at] == queries, counts[at], 0) if len(known) else 0 * queries
    return np.maximum(found - without_own, 0)
