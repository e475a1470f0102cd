"""Identification in two stages: cosine over the gallery, patches of the best again."""

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh
from jax.typing import ArrayLike

from kprpe_jax.core.features import Features
from kprpe_jax.matching.candidates import (
    check_scores,
    chunks,
    default_chunk,
    match_chunk,
    needed_fields,
    take_rows,
)
from kprpe_jax.matching.matchers import EarthMoversMatcher, Explanation, Matcher
from kprpe_jax.matching.nearest import ExactIndex, Index, Ranking, check_count
from kprpe_jax.matching.patch_weights import DEFAULT_WEIGHTING, Grids
from kprpe_jax.matching.sinkhorn import FAST, Solver


def two_stage(
    queries: Features,
    gallery: Features,
    *,
    k: int = 100,
    alpha: float | None = 0.7,
    matcher: Matcher = EarthMoversMatcher(),  # noqa: B008
    exclude_rows: ArrayLike | None = None,
    ranks: int | None = None,
    index: Index | None = None,
    mesh: Mesh | None = None,
) -> Ranking:
    """Rank the gallery by cosine and the k best again by patches.

    Source: DeepFace-EMD, Sec. 3.1.3 and Eq. 5.1.
    Args:
      queries: [Q, ...], host or device.
      gallery: [G, ...]; its grid may differ from the queries'.
      k: how many are compared by patches; at most the size of the gallery.
      alpha: share of the patches' similarity, in [0, 1]; None: the plain sum of both,
        as the official code has it for LFW.
      matcher: what compares the patches.
      exclude_rows: int32 [Q], gallery row to exclude per query; -1 = none.
      ranks: length of the ranking, k or more; ranks after k keep the order and scores
        of the first stage.
      index: of the gallery's embeddings, made once for many calls; None: exact, made
        for this call.
      mesh: its devices share the first stage by gallery rows.
    Returns: the ranking.
    Raises: ValueError: as `first_stage` and `Matcher.score`; alpha, k or ranks out of
      range.
    """
    first = _candidates(queries, gallery, k, alpha, ranks, exclude_rows, index, mesh)
    patches = matcher.score(queries, gallery, first.rows[:, :k])
    return rank_again(first, patches, alpha)


def explain_two_stage(
    queries: Features,
    gallery: Features,
    *,
    shown: int,
    k: int = 100,
    alpha: float | None = 0.7,
    matcher: Matcher = EarthMoversMatcher(),  # noqa: B008
    exclude_rows: ArrayLike | None = None,
    ranks: int | None = None,
    index: Index | None = None,
) -> tuple[Ranking, Explanation]:
    """Rank as `two_stage`, and explain the first ranks by what ranked them.

    The flows of the explanation are those whose scores made the ranking: no transport
    problem is solved twice. Those of all k candidates are on the host at once.

    Args:
      shown: ranks to explain, 1 <= shown <= k.
      queries, gallery, k, alpha, matcher, exclude_rows, ranks, index: as `two_stage`.
    Returns: the ranking; explanations [Q, shown, ...] of its first ranks.
    Raises: ValueError: as `two_stage`; shown out of range.
    """
    if not 1 <= shown <= k:
        raise ValueError(
            f"explain_two_stage: shown must lie in [1, k = {k}]; got {shown}."
        )
    first = _candidates(queries, gallery, k, alpha, ranks, exclude_rows, index, None)
    explained = matcher.explain(queries, gallery, first.rows[:, :k])
    order = _order(first, explained.scores, alpha)
    ranking = rank_again(first, explained.scores, alpha)
    at = np.arange(len(order))[:, None], order[:, :shown]
    return ranking, jax.tree.map(lambda x: x[at], explained)


def _candidates(
    queries: Features,
    gallery: Features,
    k: int,
    alpha: float | None,
    ranks: int | None,
    exclude_rows: ArrayLike | None,
    index: Index | None,
    mesh: Mesh | None,
) -> Ranking:
    """The first stage, its numbers checked."""
    if alpha is not None and not 0 <= alpha <= 1:
        raise ValueError(f"--alpha must lie in [0, 1]; got {alpha}; None = a sum.")
    ranks = k if ranks is None else ranks
    size = len(gallery.embeddings)
    if not 1 <= k <= ranks <= size:
        raise ValueError(
            "two_stage: 1 <= k <= ranks <= the size of the gallery must hold; got k "
            f"{k}, ranks {ranks} and a gallery of {size}; set k and ranks."
        )
    return first_stage(
        queries, gallery, ranks=ranks, exclude_rows=exclude_rows, index=index, mesh=mesh
    )


def first_stage(
    queries: Features,
    gallery: Features,
    *,
    ranks: int,
    exclude_rows: ArrayLike | None = None,
    index: Index | None = None,
    mesh: Mesh | None = None,
) -> Ranking:
    """Gallery rows by the cosine of their embeddings.

    Args:
      queries, gallery, exclude_rows, index, mesh: as `two_stage`.
      ranks: at most the size of the gallery.
    Raises: ValueError: a query without a face, embeddings that are not finite or of
      another width, more ranks than gallery rows.
    """
    embeddings, size = np.asarray(queries.embeddings), len(gallery.embeddings)
    if embeddings.shape[1:] != gallery.embeddings.shape[1:]:
        raise ValueError(
            "first_stage: embeddings of queries and gallery must be equally wide; got "
            f"{embeddings.shape} and {gallery.embeddings.shape}; use one network."
        )
    faceless = np.flatnonzero(~embeddings.any(-1))
    if faceless.size:
        raise ValueError(
            f"first_stage: every query must show a face; got an embedding of zeros for "
            f"query {faceless[0]} and {faceless.size - 1} more; leave these out."
        )
    check_count("first_stage: ranks", ranks, size)
    index = ExactIndex(gallery.embeddings, mesh=mesh) if index is None else index
    if len(index) != size:
        raise ValueError(
            f"first_stage: index must be of this gallery of {size} rows; got one of "
            f"{len(index)}; make it from its embeddings."
        )
    found = index.search(
        embeddings, ranks if exclude_rows is None else min(ranks + 1, size)
    )
    if exclude_rows is None:
        return found
    own = (found.rows == np.asarray(exclude_rows)[:, None]) & (found.rows >= 0)
    order = np.argsort(own, axis=1, kind="stable")[:, :ranks]
    rows = np.take_along_axis(np.where(own, -1, found.rows), order, 1)
    scores = np.take_along_axis(np.where(own, -np.inf, found.scores), order, 1)
    return Ranking(rows, scores, scores)


def rank_again(first: Ranking, patches: np.ndarray, alpha: float | None) -> Ranking:
    """Mix both similarities of the candidates and sort these.

    Source: DeepFace-EMD, Eq. 5.1.
    Args:
      first: from `first_stage`.
      patches: float32 [Q, k], similarities of the patches of the first k ranks.
      alpha: share of `patches`; None: the plain sum.
    Returns: the ranking, equal scores in the order of `first`; ranks after k as they
      were.
    """
    k = patches.shape[1]
    order = _order(first, patches, alpha)
    mixed = _mix(first, patches, alpha)

    def joined(head: np.ndarray, tail: np.ndarray) -> np.ndarray:
        return np.concatenate([np.take_along_axis(head, order, 1), tail[:, k:]], 1)

    not_compared = np.full(first.scores.shape, np.nan, np.float32)
    return Ranking(
        joined(first.rows[:, :k], first.rows),
        joined(mixed, first.scores),
        joined(first.scores[:, :k], first.scores),
        joined(patches, not_compared),
    )


def _mix(first: Ranking, patches: np.ndarray, alpha: float | None) -> np.ndarray:
    """Scores of the candidates, in the order of `first`."""
    k = patches.shape[1]
    weights = (1.0, 1.0) if alpha is None else (alpha, 1 - alpha)
    missing = first.rows[:, :k] < 0
    parts = (np.where(missing, 0, x) for x in (patches, first.scores[:, :k]))
    mixed = sum(np.float32(w) * x for w, x in zip(weights, parts, strict=True))
    return np.where(missing, -np.inf, mixed).astype(np.float32)


def _order(first: Ranking, patches: np.ndarray, alpha: float | None) -> np.ndarray:
    """Places of the candidates in `first`, best first."""
    return np.argsort(-_mix(first, patches, alpha), axis=1, kind="stable")


def rank_by_patches(
    queries: Features,
    gallery: Features,
    *,
    ranks: int = 100,
    weighting: str = DEFAULT_WEIGHTING,
    grid: Grids | None = None,
    solver: Solver = FAST,
    exclude_rows: ArrayLike | None = None,
    chunk: int | None = None,
    block: int = 64,
) -> Ranking:
    """Rank the whole gallery by earth mover's similarity alone, without a first stage.

    Source: DeepFace-EMD, Table 5.3, "EMD at Stage 1".
    Args:
      queries, gallery, exclude_rows: as `two_stage`.
      ranks: at most the size of the gallery.
      weighting, grid, solver: as `EarthMoversMatcher`.
      chunk, block: queries and gallery rows compared at once.
    Raises: ValueError: more ranks than gallery rows; as `EarthMoversMatcher.score`.
    """
    size, count = len(gallery.patches), len(queries.patches)
    check_count("rank_by_patches: ranks", ranks, size)
    queries, gallery = (needed_fields(x, weighting) for x in (queries, gallery))
    chunk = default_chunk() if chunk is None else chunk
    own = np.full(count, -1) if exclude_rows is None else np.asarray(exclude_rows)
    rankings = []
    for part in chunks(count, chunk):
        query = take_rows(queries, part[:, None])
        scores: list[Array] = []
        for rows in chunks(size, block):
            jax.block_until_ready(scores[-1:])
            pair = query, take_rows(gallery, rows[None])
            scores += match_chunk(*pair, weighting, grid, solver)
        all_rows = np.broadcast_to(np.arange(size), (len(part), size))
        result = np.concatenate([np.asarray(x) for x in scores], 1)[:, :size]
        check_scores(result, all_rows, part)
        is_own = all_rows == own[part][:, None]
        result = np.where(is_own, -np.inf, result)
        order = np.argsort(-result, axis=1, kind="stable")[:, :ranks]
        chosen = np.take_along_axis(np.where(is_own, -1, all_rows), order, 1)
        rankings.append((chosen, np.take_along_axis(result, order, 1)))
    rows, scores = (np.concatenate(x)[:count] for x in zip(*rankings, strict=True))
    return Ranking(rows.astype(np.int32), scores, patch_similarity=scores)
