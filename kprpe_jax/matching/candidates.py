"""Compare each query with its own candidates, a chunk of queries at a time.

Arrays of the gallery may be NumPy arrays, memory maps or device arrays; only what one
chunk needs is on the device at a time. A pair's score is the same in whatever chunk.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike

from kprpe_jax.core.constraints import auto_axes
from kprpe_jax.core.features import Features
from kprpe_jax.matching.earth_movers import match_faces
from kprpe_jax.matching.patch_weights import Grids
from kprpe_jax.matching.sinkhorn import Solver


def compare_candidates(
    compare: Callable[[Any, Any], tuple[Array, ...]],
    queries: Any,
    gallery: Any,
    rows: np.ndarray,
    *,
    chunk: int | None = None,
    mesh: Mesh | None = None,
) -> tuple[np.ndarray, ...]:
    """Compare queries with candidates.

    Args:
      compare: compiled; trees of arrays [chunk, 1, ...] of queries and [chunk, k, ...]
        of their candidates -> arrays [chunk, k, ...], the scores first.
      queries, gallery: trees of arrays [Q, ...] and [G, ...], host or device.
      rows: int [Q, k], gallery rows; -1 = no candidate.
      chunk: queries compared at once; None: `default_chunk`.
      mesh: its devices share the queries of a chunk.
    Returns: host arrays [Q, k, ...]; scores are -inf where there is no candidate.
    Raises: ValueError: no rows, rows that are not there, scores that are not finite, a
      chunk that does not divide over the mesh.
    """
    chunk = default_chunk(mesh) if chunk is None else chunk
    if mesh is not None and chunk % mesh.size:
        raise ValueError(
            f"compare_candidates: chunk must be a multiple of the {mesh.size} devices "
            f"of the mesh; got {chunk}."
        )
    mesh = None if mesh is None else auto_axes(mesh)
    rows, size = np.asarray(rows), len(jax.tree.leaves(gallery)[0])
    if rows.size and not -1 <= rows.min() <= rows.max() < size:
        raise ValueError(
            f"compare_candidates: rows must lie in [0, {size}), or be -1; got "
            f"{rows.min()} to {rows.max()}; rank this gallery."
        )
    if not rows.size:
        return (np.zeros(rows.shape, np.float32),)
    results: list[tuple[Array, ...]] = []
    for part in chunks(len(rows), chunk):
        candidates = take_rows(gallery, np.maximum(rows[part], 0), mesh)
        jax.block_until_ready(results[-1:])  # not more than two chunks in memory
        results.append(compare(take_rows(queries, part[:, None], mesh), candidates))
    scores, *others = (
        np.concatenate([np.asarray(x) for x in parts])[: len(rows)]
        for parts in zip(*results, strict=True)
    )
    check_scores(scores, rows)
    return np.where(rows < 0, -np.inf, scores).astype(np.float32), *others


def needed_fields(features: Features, weighting: str) -> Features:
    """The fields that a comparison reads; the others are None and never sent."""
    keypoints = features.keypoints if weighting == "landmarks" else None
    return features._replace(style=None, keypoints=keypoints)


def score_candidates(
    score: Callable[[Array, Array], Array],
    queries: ArrayLike,
    gallery: ArrayLike,
    rows: np.ndarray,
    *,
    chunk: int | None = None,
) -> np.ndarray:
    """Similarities of each query with its own candidates by any score of pairs.

    Source: Face-ViT, Sec. 5.3.2: the 100 best by cosine again, mixed with alpha = 0.7.
    Args:
      score: jitted; [P, ...] of the query, the same of the candidate -> [P]. The thesis
        does not say which image is the first; here the query is.
      queries: [Q, ...], host or device.
      gallery: [G, ...].
      rows: int [Q, k], from `two_stage.first_stage`; -1 = no candidate.
      chunk: queries compared at once; None: as `two_stage`.
    Returns: float32 [Q, k], -inf where there is no candidate.
    Raises: ValueError: as `compare_candidates`.
    """

    def compare(query: Array, candidates: Array) -> tuple[Array]:
        return (score(*flat_pairs(query, candidates)).reshape(candidates.shape[:2]),)

    return compare_candidates(compare, queries, gallery, rows, chunk=chunk)[0]


def flat_pairs(query: Array, candidates: Array) -> tuple[Array, Array]:
    """Pairs of [Q, 1, ...] and [Q, k, ...] as two arrays [Q k, ...]."""
    first = jnp.broadcast_to(query, candidates.shape)
    return tuple(x.reshape(-1, *x.shape[2:]) for x in (first, candidates))


@partial(jax.jit, static_argnames=("weighting", "grid", "solver", "mesh", "fields"))
def match_chunk(
    query: Features,
    gallery: Features,
    weighting: str,
    grid: Grids | None,
    solver: Solver,
    mesh: Mesh | None = None,
    fields: tuple[str, ...] = ("score",),
) -> tuple[Array, ...]:
    """Fields of `match_faces`, compiled; with a mesh its devices share the queries."""

    def match(query: Features, gallery: Features) -> tuple[Array, ...]:
        options = dict(weighting=weighting, grid=grid, solver=solver)
        found = match_faces(query, gallery, **options)
        return tuple(getattr(found, name) for name in fields)

    if mesh is None:
        return match(query, gallery)
    mesh = auto_axes(mesh)
    share = PartitionSpec(mesh.axis_names)  # XLA would gather all for a Pallas kernel
    match = jax.shard_map(
        match, mesh=mesh, in_specs=share, out_specs=share, check_vma=False
    )
    found = match(query, gallery)
    everywhere = NamedSharding(mesh, PartitionSpec())  # any process reads all
    return jax.lax.with_sharding_constraint(found, everywhere)


def default_chunk(mesh: Mesh | None = None) -> int:
    """Queries compared at once: 8 a device; 1 on CPUs, which stays in the caches."""
    devices = jax.devices()[:1] if mesh is None else mesh.devices.flat
    return len(devices) * (1 if devices[0].platform == "cpu" else 8)


def chunks(count: int, size: int) -> Iterator[np.ndarray]:
    """Rows in parts of one size, so that one program serves all; the last is filled."""
    for start in range(0, count, size):
        yield np.minimum(np.arange(start, start + size), count - 1)


def take_rows(arrays: Any, rows: np.ndarray, mesh: Mesh | None = None) -> Any:
    """Rows of all arrays of a tree; with a mesh its devices share the leading axis.

    Every process reads the rows of its own devices alone.
    """
    if mesh is None:
        return jax.tree.map(lambda x: jnp.asarray(x[rows]), arrays)
    over_all = NamedSharding(mesh, PartitionSpec(mesh.axis_names))

    def place(x: ArrayLike) -> Array:
        return jax.make_array_from_callback(
            (*rows.shape, *x.shape[1:]), over_all, lambda at: np.asarray(x[rows[at[0]]])
        )

    return jax.tree.map(place, arrays)


def check_scores(
    scores: np.ndarray, rows: np.ndarray, queries: np.ndarray | None = None
) -> None:
    """Raise ValueError where a candidate has a score that is not finite."""
    bad = np.argwhere(~np.isfinite(scores) & (rows >= 0))
    if bad.size:
        query = bad[0, 0] if queries is None else queries[bad[0, 0]]
        raise ValueError(
            f"patches must be finite; got no finite score for {len(bad)} pairs, the "
            f"first of query {query} and gallery row {rows[tuple(bad[0])]}; find out "
            "which image made it."
        )
