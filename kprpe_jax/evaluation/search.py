"""Search of a gallery of any size, block by block, in bounded memory."""

from collections.abc import Iterable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike

from kprpe_jax.core.checks import finite
from kprpe_jax.core.constraints import auto_axes
from kprpe_jax.core.unit import direction

NO_IDENTITY = np.iinfo(np.int32).min  # of rows that only fill up a block


class Found(NamedTuple):
    """What a search found for each probe.

    Attributes:
      scores: float32 [P, k], cosines, descending.
      rows: int32 [P, k], of the gallery; the lower row first at a tie.
      ids: int32 [P, k], their identities.
      mate_score: float32 [P], the best cosine with the probe's own identity at whatever
        rank; -inf where the gallery does not hold it.
    """

    scores: np.ndarray
    rows: np.ndarray
    ids: np.ndarray
    mate_score: np.ndarray


def search(
    probes: ArrayLike,
    probe_ids: ArrayLike,
    gallery: ArrayLike | Iterable[tuple[ArrayLike, ArrayLike]],
    gallery_ids: ArrayLike | None = None,
    *,
    k: int,
    block: int = 4096,
    mesh: Mesh | None = None,
) -> Found:
    """The k most similar gallery rows of each probe, by cosine.

    Besides the probes and one part of the gallery, about 3 * P * block * 4 bytes are in
    use on all devices together (520 MiB measured for 10,000 probes of
    128 numbers, benchmarks.streaming).

    Args:
      probes: [P, D], not normalized; a zero probe has cosine 0 with all.
      probe_ids: int [P].
      gallery: [N, D]; or an iterator over (embeddings [n, D], ids [n]) where it does
        not fit in memory, best of one size.
      gallery_ids: int [N], with an array.
      k: how many to keep, at most the size of the gallery.
      block: gallery rows compared at once.
      mesh: every device searches for its share of the probes, which every process
        gives in whole, as it does the gallery; None: the first device for all.
    Returns: `Found` on the host, in every process.
    Raises: ValueError: embeddings that are not finite, ids that do not fit or are
      missing, k larger than the gallery or smaller than 1.
    """
    if k < 1:
        raise ValueError(f"search: k must be at least 1; got {k}.")
    if gallery_ids is not None:
        gallery = [(gallery, gallery_ids)]
    elif hasattr(gallery, "shape"):
        raise ValueError(
            "search: a gallery that is an array needs gallery_ids; got none; number "
            "the people."
        )
    if mesh is None:
        mesh = Mesh(np.array(jax.devices()[:1]), ("data",))
    mesh = auto_axes(mesh)
    probes, count = finite("search", probes), len(probes)
    own = _ids(probe_ids, count)
    # Filled up, so that every device has as many.
    fill = -count % mesh.size
    own = _place(np.pad(own, (0, fill)), mesh)
    probes = _unit(_place(np.pad(probes, ((0, fill), (0, 0))), mesh))
    state, first = _nothing_yet(probes, k, mesh=mesh), 0
    for embeddings, ids in gallery:
        ids = _ids(ids, len(embeddings))
        for start in range(0, len(ids), block):
            rows = slice(start, start + block)
            part = finite("search", embeddings[rows], start=first + start)
            part_ids = ids[rows]
            # Every block has the same shape, so that one program serves all.
            short = block - len(part)
            part = np.pad(part, ((0, short), (0, 0)))
            part_ids = np.pad(part_ids, (0, short), constant_values=NO_IDENTITY)
            at = np.int32(first + start)
            state = _merge(state, probes, own, part, part_ids, at, mesh=mesh)
        first += len(ids)
    if k > first:
        raise ValueError(
            f"search: k must lie between 1 and the size of the gallery, {first}; got "
            f"{k}."
        )
    return Found(*(x[:count] for x in jax.device_get(_gather(state, mesh=mesh))))


def _place(rows: np.ndarray, mesh: Mesh) -> Array:
    """Rows over all devices; every process has all and hands over its own."""
    return jax.make_array_from_callback(
        rows.shape, NamedSharding(mesh, _over_all(mesh)), rows.__getitem__
    )


def _over_all(mesh: Mesh) -> PartitionSpec:
    return PartitionSpec(mesh.axis_names)


def _ids(ids: ArrayLike, count: int) -> np.ndarray:
    ids = np.asarray(ids)
    narrow = ids.astype(np.int32)
    if ids.shape != (count,) or (narrow != ids).any() or NO_IDENTITY in narrow:
        raise ValueError(
            "search: there must be one identity per embedding, an int32 above "
            f"{NO_IDENTITY}; got {ids.shape} for {count} embeddings; number the people."
        )
    return narrow


_unit = jax.jit(direction)


@partial(jax.jit, static_argnames=("k", "mesh"))
def _nothing_yet(probes: Array, k: int, *, mesh: Mesh) -> Found:
    nothing = jnp.full((len(probes), k), -jnp.inf)
    unknown = jnp.full((len(probes), k), NO_IDENTITY, jnp.int32)
    found = Found(nothing, unknown, unknown, nothing[:, 0])
    return jax.lax.with_sharding_constraint(found, NamedSharding(mesh, _over_all(mesh)))


@partial(jax.jit, static_argnames="mesh")
def _gather(found: Found, *, mesh: Mesh) -> Found:
    everywhere = NamedSharding(mesh, PartitionSpec())
    return jax.lax.with_sharding_constraint(found, everywhere)


@partial(jax.jit, static_argnames="mesh", donate_argnums=0)
def _merge(
    found: Found,
    probes: Array,
    own: Array,
    part: Array,
    ids: Array,
    first: Array,
    *,
    mesh: Mesh,
) -> Found:
    """The best of what was found and one more block.

    Args:
      found: of the probes so far.
      probes: [P, D], unit.
      own: int32 [P], identities of the probes.
      part: [block, D], of the gallery.
      ids: int32 [block].
      first: int32 [], row of the gallery with which the block begins.
    """
    rows = _over_all(mesh)
    return jax.shard_map(
        _merge_here,
        mesh=mesh,
        in_specs=(rows, rows, rows, *[PartitionSpec()] * 3),
        out_specs=rows,
        check_vma=False,
    )(found, probes, own, part, ids, first)


def _merge_here(
    found: Found, probes: Array, own: Array, part: Array, ids: Array, first: Array
) -> Found:
    scores = jnp.matmul(probes, direction(part).T, precision=jax.lax.Precision.HIGHEST)
    scores = jnp.where(ids == NO_IDENTITY, -jnp.inf, scores)  # [P, block]
    mates = jnp.where(ids == own[:, None], scores, -jnp.inf).max(-1)
    k = found.scores.shape[1]
    best, column = jax.lax.top_k(scores, min(k, len(ids)))
    # Earlier rows stand first, and top_k takes the first of equals.
    merged, at = jax.lax.top_k(jnp.concatenate([found.scores, best], 1), k)
    pick = partial(jnp.take_along_axis, indices=at, axis=1)
    return Found(
        merged,
        pick(jnp.concatenate([found.rows, first + column], 1)),
        pick(jnp.concatenate([found.ids, ids[column]], 1)),
        jnp.maximum(found.mate_score, mates),
    )
