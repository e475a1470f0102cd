"""Identification in two stages: cosine over the gallery, earth mover's over the best.

Arrays of the gallery may be NumPy arrays, memory maps or device arrays; only what one
chunk needs is on the device at a time. A pair's score is the same in whatever chunk.
"""

from collections.abc import Callable, Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike

from kprpe_jax.core.constraints import auto_axes
from kprpe_jax.matching.earth_movers import match_faces
from kprpe_jax.matching.nearest import ExactIndex, Index, Ranking
from kprpe_jax.matching.patch_weights import Faces
from kprpe_jax.matching.sinkhorn import Solver

# (queries, gallery, rows [Q, k]) -> similarities float32 [Q, k] of the candidates
Compare = Callable[[Faces, Faces, np.ndarray], np.ndarray]
# Weights that sum to 1 on both sides need nothing more; see `Solver`.
FAST = Solver(domain="kernel", unequal="query")


def two_stage(
    queries: Faces,
    gallery: Faces,
    *,
    k: int = 100,
    alpha: float | None = 0.7,
    weighting: str = "apc",
    solver: Solver = FAST,
    compare: Compare | None = None,
    exclude_rows: ArrayLike | None = None,
    ranks: int | None = None,
    chunk: int | None = None,
    index: Index | None = None,
    mesh: Mesh | None = None,
) -> Ranking:
    """Rank the gallery by cosine and the k best again by patches.

    Source: DeepFace-EMD, Sec. 3.1.3 and Eq. 5.1.
    Args:
      queries: [Q, ...], host or device.
      gallery: [G, ...]; its grid may differ from the queries'.
      k: how many are compared by patches; at most the size of the gallery.
      alpha: share of the earth mover's similarity, in [0, 1]; None: the plain sum of
        both, as the official code has it for LFW.
      weighting: of the patches, one of `patch_weights.WEIGHTINGS`.
      solver: how flows are computed.
      compare: what compares the candidates in place of the earth mover's distance, such
        as a two-image transformer (`two_image.second_stage` with its `score`); then
        weighting, solver and chunk are of no matter.
      exclude_rows: int32 [Q], gallery row to exclude per query; -1 = none.
      ranks: length of the ranking, k or more; ranks after k keep the order and scores
        of the first stage.
      chunk: queries compared at once: chunk * k * N * (C + a few M) * 4 bytes; with a
        mesh a multiple of its devices. None: 8 a device; on CPUs 1, which stays in the
        caches and is twice as fast.
      index: of the gallery's embeddings, made once for many calls; None: exact, made
        for this call.
      mesh: its devices share the first stage by gallery rows, the second by queries.
    Returns: the ranking.
    Raises: ValueError: as `first_stage` and `second_stage`; alpha, k or ranks out of
      range.
    """
    if alpha is not None and not 0 <= alpha <= 1:
        raise ValueError(
            f"two_stage: alpha must lie in [0, 1]; got {alpha}; use None for a sum."
        )
    ranks = k if ranks is None else ranks
    size = len(gallery.embeddings)
    if not 1 <= k <= ranks <= size:
        raise ValueError(
            "two_stage: 1 <= k <= ranks <= the size of the gallery must hold; got k "
            f"{k}, ranks {ranks} and a gallery of {size}; set k and ranks."
        )
    first = first_stage(
        queries, gallery, ranks=ranks, exclude_rows=exclude_rows, index=index, mesh=mesh
    )
    if compare is None:
        compare = partial(
            second_stage, weighting=weighting, solver=solver, chunk=chunk, mesh=mesh
        )
    patches = compare(queries, gallery, first.rows[:, :k])
    return rank_again(first, patches, alpha)


def first_stage(
    queries: Faces,
    gallery: Faces,
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
    if not 1 <= ranks <= size:
        raise ValueError(
            "first_stage: ranks must lie between 1 and the size of the gallery, "
            f"{size}; got {ranks}."
        )
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
        return Ranking(found.rows, found.scores)
    own = (found.rows == np.asarray(exclude_rows)[:, None]) & (found.rows >= 0)
    order = np.argsort(own, axis=1, kind="stable")[:, :ranks]
    rows = np.where(own, -1, found.rows)
    scores = np.where(own, -np.inf, found.scores)
    return Ranking(*(np.take_along_axis(x, order, 1) for x in (rows, scores)))


def second_stage(
    queries: Faces,
    gallery: Faces,
    rows: np.ndarray,
    *,
    weighting: str = "apc",
    solver: Solver = FAST,
    chunk: int | None = None,
    mesh: Mesh | None = None,
) -> np.ndarray:
    """Earth mover's similarities of each query with its own candidates.

    Args:
      queries, gallery, weighting, solver, chunk, mesh: as `two_stage`.
      rows: int [Q, k], gallery rows; -1 = no candidate.
    Returns: float32 [Q, k], -inf where there is no candidate.
    Raises: ValueError: rows that are not there, patches that are not finite, settings
      or shapes that do not fit.
    """
    chunk = default_chunk(mesh) if chunk is None else chunk
    if mesh is not None and chunk % mesh.size:
        raise ValueError(
            f"second_stage: chunk must be a multiple of the {mesh.size} devices of the "
            f"mesh; got {chunk}."
        )
    mesh = None if mesh is None else auto_axes(mesh)
    rows, size = np.asarray(rows), len(gallery.patches)
    if rows.size and not -1 <= rows.min() <= rows.max() < size:
        raise ValueError(
            f"second_stage: rows must lie in [0, {size}), or be -1; got {rows.min()} "
            f"to {rows.max()}; rank this gallery."
        )
    if not rows.size:
        return np.zeros(rows.shape, np.float32)
    scores: list[Array] = []
    for part in chunks(len(rows), chunk):
        candidates = _take(gallery, np.maximum(rows[part], 0), mesh)
        jax.block_until_ready(scores[-1:])  # not more than two chunks in memory
        query = _take(queries, part[:, None], mesh)
        scores.append(_scores(query, candidates, weighting, solver, mesh))
    result = np.concatenate([np.asarray(x) for x in scores])[: len(rows)]
    _check(result, rows)
    return np.where(rows < 0, -np.inf, result)


def rank_again(first: Ranking, patches: np.ndarray, alpha: float | None) -> Ranking:
    """Mix both similarities of the candidates and sort these.

    Source: DeepFace-EMD, Eq. 5.1.
    Args:
      first: from `first_stage`.
      patches: float32 [Q, k], from `second_stage` of the first k ranks.
      alpha: share of `patches`; None: the plain sum.
    Returns: the ranking, equal scores in the order of `first`; ranks after k as they
      were.
    """
    k = patches.shape[1]
    weights = (1.0, 1.0) if alpha is None else (alpha, 1 - alpha)
    rows, cosine = first.rows[:, :k], first.scores[:, :k]
    missing = rows < 0
    parts = (np.where(missing, 0, x) for x in (patches, cosine))
    mixed = sum(np.float32(w) * x for w, x in zip(weights, parts, strict=True))
    mixed = np.where(missing, -np.inf, mixed).astype(np.float32)
    order = np.argsort(-mixed, axis=1, kind="stable")
    heads = (np.take_along_axis(x, order, 1) for x in (rows, mixed))
    tails = first.rows[:, k:], first.scores[:, k:]
    return Ranking(
        *(np.concatenate(both, 1) for both in zip(heads, tails, strict=True))
    )


def rank_by_patches(
    queries: Faces,
    gallery: Faces,
    *,
    ranks: int = 100,
    weighting: str = "apc",
    solver: Solver = FAST,
    exclude_rows: ArrayLike | None = None,
    chunk: int | None = None,
    block: int = 64,
) -> Ranking:
    """Rank the whole gallery by earth mover's similarity alone, without a first stage.

    Source: DeepFace-EMD, Table 5.3, "EMD at Stage 1".
    Args:
      queries, gallery, weighting, solver, exclude_rows: as `two_stage`.
      ranks: at most the size of the gallery.
      chunk, block: queries and gallery rows compared at once.
    Raises: ValueError: more ranks than gallery rows; as `second_stage`.
    """
    size, count = len(gallery.patches), len(queries.patches)
    if not 1 <= ranks <= size:
        raise ValueError(
            "rank_by_patches: ranks must lie between 1 and the size of the gallery, "
            f"{size}; got {ranks}."
        )
    chunk = default_chunk() if chunk is None else chunk
    own = np.full(count, -1) if exclude_rows is None else np.asarray(exclude_rows)
    rankings = []
    for part in chunks(count, chunk):
        query = _take(queries, part[:, None])
        scores: list[Array] = []
        for rows in chunks(size, block):
            jax.block_until_ready(scores[-1:])
            candidates = _take(gallery, rows[None])
            scores.append(_scores(query, candidates, weighting, solver))
        all_rows = np.broadcast_to(np.arange(size), (len(part), size))
        result = np.concatenate([np.asarray(x) for x in scores], 1)[:, :size]
        _check(result, all_rows, part)
        is_own = all_rows == own[part][:, None]
        result = np.where(is_own, -np.inf, result)
        order = np.argsort(-result, axis=1, kind="stable")[:, :ranks]
        chosen = np.take_along_axis(np.where(is_own, -1, all_rows), order, 1)
        rankings.append((chosen, np.take_along_axis(result, order, 1)))
    rows, scores = (np.concatenate(x)[:count] for x in zip(*rankings, strict=True))
    return Ranking(rows.astype(np.int32), scores)


@partial(jax.jit, static_argnames=("weighting", "solver", "mesh"))
def _scores(
    query: Faces,
    gallery: Faces,
    weighting: str,
    solver: Solver,
    mesh: Mesh | None = None,
) -> Array:
    def match(query: Faces, gallery: Faces) -> Array:
        return match_faces(query, gallery, weighting=weighting, solver=solver).score

    if mesh is None:
        return match(query, gallery)
    share = PartitionSpec(mesh.axis_names)  # XLA would gather all for a Pallas kernel
    match = jax.shard_map(
        match, mesh=mesh, in_specs=share, out_specs=share, check_vma=False
    )
    scores = match(query, gallery)
    everywhere = NamedSharding(mesh, PartitionSpec())  # any process reads all
    return jax.lax.with_sharding_constraint(scores, everywhere)


def default_chunk(mesh: Mesh | None = None) -> int:
    """Queries compared at once: 8 a device; 1 on CPUs, which stays in the caches."""
    devices = jax.devices()[:1] if mesh is None else mesh.devices.flat
    return len(devices) * (1 if devices[0].platform == "cpu" else 8)


def chunks(count: int, size: int) -> Iterator[np.ndarray]:
    """Rows in parts of one size, so that one program serves all; the last is filled."""
    for start in range(0, count, size):
        yield np.minimum(np.arange(start, start + size), count - 1)


def _take(faces: Faces, rows: np.ndarray, mesh: Mesh | None = None) -> Faces:
    """Rows of all arrays; with a mesh its devices share the leading axis.

    Every process reads the rows of its own devices alone.
    """
    if mesh is None:
        return Faces(*(None if x is None else jnp.asarray(x[rows]) for x in faces))
    over_all = NamedSharding(mesh, PartitionSpec(mesh.axis_names))

    def place(x: ArrayLike) -> Array:
        return jax.make_array_from_callback(
            (*rows.shape, *x.shape[1:]), over_all, lambda at: np.asarray(x[rows[at[0]]])
        )

    return Faces(*(None if x is None else place(x) for x in faces))


def _check(scores: np.ndarray, rows: np.ndarray, queries: np.ndarray | None = None) -> (
    None
):  # fmt: skip
    """Features that are not finite make scores that are not."""
    bad = np.argwhere(~np.isfinite(scores) & (rows >= 0))
    if bad.size:
        query = bad[0, 0] if queries is None else queries[bad[0, 0]]
        raise ValueError(
            "second_stage: patches must be finite; got no finite score for "
            f"{len(bad)} pairs, the first of query {query} and gallery row "
            f"{rows[tuple(bad[0])]}; find out which image made it."
        )
