"""Exact search by cosine: a gallery on any mesh, larger than it, or read once.

The gallery is cut into blocks of one size, sharded over all devices of the mesh. One
program serves all blocks; a block leaves k rows a device behind.
"""

from collections.abc import Iterable
from functools import partial
from typing import NamedTuple, Protocol

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


class Ranking(NamedTuple):
    """Gallery rows in the order of similarity to each query, best first.

    Attributes:
      rows: int32 [Q, ranks], of the gallery; -1 where there is no further one.
      scores: float32 [Q, ranks], what ranked; -inf where there is none.
      cosine: float32 [Q, ranks], of the embeddings; None = not computed.
      patch_similarity: float32 [Q, ranks], of the patches; NaN where they were not
        compared; None = no second stage.
    """

    rows: np.ndarray
    scores: np.ndarray
    cosine: np.ndarray | None = None
    patch_similarity: np.ndarray | None = None


class SearchResult(NamedTuple):
    """What a protocol needs of the search of each probe.

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


class Index(Protocol):
    """A gallery that can be searched by cosine, exactly or not."""

    def __len__(self) -> int:
        """Rows of the gallery."""

    def search(self, queries: ArrayLike, k: int) -> Ranking:
        """The k nearest rows of each query [Q, D]; 1 <= k <= size of the gallery."""


class ExactIndex:
    """All rows are compared.

    As many blocks as are asked for stay on the devices; the others are sent there with
    every search.
    """

    def __init__(
        self,
        embeddings: ArrayLike,
        *,
        mesh: Mesh | None = None,
        block: int = 1 << 16,
        resident: int | None = None,
    ):
        """Normalize the gallery and place it.

        Args:
          embeddings: float [G, D], host array, memory map or device array; zero rows
            have cosine 0 with all.
          mesh: whose devices share each block; None: the first device alone.
          block: rows of a block, made a multiple of the devices.
          resident: rows that stay on the devices; None: all.
        Raises: ValueError: no rows, embeddings that are not finite.
        """
        if not len(embeddings):
            raise ValueError("ExactIndex: there must be embeddings; got none.")
        self._mesh, self._rows = _search_mesh(mesh), embeddings
        self._block = _block_size(min(block, len(embeddings)), self._mesh)
        stay = len(embeddings) if resident is None else resident
        self._placed = [
            self._place(start)
            for start in range(0, len(embeddings), self._block)
            if start < stay
        ]

    def __len__(self) -> int:
        """Rows of the gallery."""
        return len(self._rows)

    def search(self, queries: ArrayLike, k: int) -> Ranking:
        """The k nearest rows of each query, the lower row first at a tie.

        Args:
          queries: float [Q, D], not normalized; a zero query has cosine 0 with all.
          k: 1 <= k <= size of the gallery.
        Raises: ValueError: k out of range, another width, queries not finite.
        """
        check_search("ExactIndex", queries, self._rows, k)
        queries = finite("ExactIndex", queries)
        # No identity is asked for: no query is the mate of any row.
        own = np.zeros(len(queries), np.int32)
        ids = np.full(self._block, NO_IDENTITY, np.int32)
        search = _Search(queries, own, k, self._mesh)
        for number, start in enumerate(range(0, len(self), self._block)):
            resident = number < len(self._placed)
            part = self._placed[number] if resident else self._place(start)
            search.add(part, ids, start, min(len(self) - start, self._block))
        best = search.result()
        return Ranking(best.rows, best.scores, best.scores)

    def _place(self, start: int) -> Array:
        return _place("ExactIndex", self._rows, start, start, self._block, self._mesh)


def search(
    probes: ArrayLike,
    probe_ids: ArrayLike,
    gallery: ArrayLike | Iterable[tuple[ArrayLike, ArrayLike]],
    gallery_ids: ArrayLike | None = None,
    *,
    k: int,
    block: int = 4096,
    mesh: Mesh | None = None,
) -> SearchResult:
    """The k most similar gallery rows of each probe, by cosine, and its best mate.

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
      block: gallery rows compared at once, made a multiple of the devices.
      mesh: its devices share each block; every process gives all probes and the whole
        gallery; None: the first device for all.
    Returns: the result on the host, in every process.
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
    mesh = _search_mesh(mesh)
    block = _block_size(block, mesh)
    own = _ids(probe_ids, len(probes))
    search = _Search(finite("search", probes), own, k, mesh)
    all_ids, first = [np.zeros(0, np.int32)], 0
    for embeddings, ids in gallery:
        ids = _ids(ids, len(embeddings))
        for start in range(0, len(ids), block):
            part_ids = ids[start : start + block]
            count, at = len(part_ids), first + start
            fill = (0, block - count)
            part_ids = np.pad(part_ids, fill, constant_values=NO_IDENTITY)
            part = _place("search", embeddings, start, at, block, mesh)
            search.add(part, part_ids, at, count)
        first += len(ids)
        all_ids.append(ids)
    check_count("search: k", k, first)
    best = search.result()
    ids = np.concatenate(all_ids)[best.rows]
    return SearchResult(best.scores, best.rows, ids, best.mate_score)


def check_search(name: str, queries: ArrayLike, gallery: ArrayLike, k: int) -> None:
    """Raise ValueError unless a search makes sense."""
    if np.ndim(queries) != 2 or queries.shape[1:] != gallery.shape[1:]:
        raise ValueError(
            f"{name}: queries must be [Q, {gallery.shape[1]}] as the gallery is wide; "
            f"got {np.shape(queries)}; use one network for both."
        )
    check_count(f"{name}: k", k, len(gallery))


def check_count(name: str, count: int, size: int) -> None:
    """Raise ValueError unless there are as many rows in a gallery of this size."""
    if not 1 <= count <= size:
        raise ValueError(
            f"{name} must lie between 1 and the size of the gallery, {size}; got "
            f"{count}."
        )


class _Best(NamedTuple):
    """The best so far: scores and rows [Q, k], the score of the best mate [Q]."""

    scores: Array
    rows: Array
    mate_score: Array


class _Search:
    """One search, a block of the gallery at a time."""

    def __init__(self, queries: np.ndarray, own: np.ndarray, k: int, mesh: Mesh):
        self._mesh, self._count = mesh, len(queries)
        nothing = np.full((len(queries), k), -np.inf, np.float32)
        rows = np.full((len(queries), k), -1, np.int32)
        everywhere = partial(_place_whole, mesh=mesh)
        self._best = _Best(*map(everywhere, (nothing, rows, nothing[:, 0])))
        self._queries, self._own = _unit(everywhere(queries)), everywhere(own)

    def add(self, part: Array, ids: np.ndarray, start: int, count: int) -> None:
        """Compare a placed block whose `count` rows begin at gallery row `start`."""
        limits = np.int32(start), np.int32(count)
        sides = self._queries, self._own, part, _place_whole(ids, mesh=self._mesh)
        self._best = _merge(self._best, *sides, *limits, mesh=self._mesh)

    def result(self) -> _Best:
        """On the host."""
        return jax.device_get(self._best)


def _search_mesh(mesh: Mesh | None) -> Mesh:
    """The mesh with automatic axes; the first device alone without one."""
    if mesh is None:
        mesh = Mesh(np.array(jax.devices()[:1]), ("data",))
    return auto_axes(mesh)


def _block_size(block: int, mesh: Mesh) -> int:
    return -(-block // mesh.size) * mesh.size


def _place(
    name: str, rows: ArrayLike, start: int, first: int, block: int, mesh: Mesh
) -> Array:
    """A unit block of rows from `start`, filled up with zeros, sharded over the mesh.

    Every process reads what its own devices hold. `first` is the number of the block's
    first row for messages.
    """
    over_all = NamedSharding(mesh, PartitionSpec(mesh.axis_names))

    def read(at: tuple[slice, ...]) -> np.ndarray:
        begin, end, _ = at[0].indices(block)
        part = finite(name, rows[start + begin : start + end], start=first + begin)
        return np.pad(part, ((0, end - begin - len(part)), (0, 0)))

    shape = block, *rows.shape[1:]
    return _unit(jax.make_array_from_callback(shape, over_all, read))


def _place_whole(array: np.ndarray, *, mesh: Mesh) -> Array:
    """The whole array on every device; every process has all of it."""
    everywhere = NamedSharding(mesh, PartitionSpec())
    return jax.make_array_from_callback(array.shape, everywhere, array.__getitem__)


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


@partial(jax.jit, static_argnames="mesh", donate_argnums=0)
def _merge(
    best: _Best,
    queries: Array,
    own: Array,
    part: Array,
    ids: Array,
    start: Array,
    count: Array,
    *,
    mesh: Mesh,
) -> _Best:
    """The best of what was found and one more block.

    Args:
      best: of the queries so far.
      queries: [Q, D], unit.
      own: int32 [Q], identities of the queries.
      part: [block, D], unit, sharded over its rows.
      ids: int32 [block], of the rows.
      start: row of the gallery with which the block begins.
      count: rows of the block that are there.
    """
    axes = mesh.axis_names
    k = best.scores.shape[1]

    def local(queries: Array, own: Array, part: Array, ids: Array) -> tuple[Array, ...]:
        exact = jax.lax.Precision.HIGHEST
        scores = jnp.matmul(queries, part.T, precision=exact)
        first = jax.lax.axis_index(axes) * len(part)
        there = first + jnp.arange(len(part)) < count
        scores = jnp.where(there, scores, -jnp.inf)
        mates = jnp.where(ids == own[:, None], scores, -jnp.inf).max(-1, keepdims=True)
        scores, at = jax.lax.top_k(scores, min(k, len(part)))
        return scores, start + first + at, mates

    shared = PartitionSpec(axes)
    *found, mates = jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec(), shared, shared),
        out_specs=PartitionSpec(None, axes),
        check_vma=False,
    )(queries, own, part, ids)
    # Earlier rows stand first, and top_k takes the first of equals.
    scores, rows = (jnp.concatenate(x, 1) for x in zip(best[:2], found, strict=True))
    scores, at = jax.lax.top_k(scores, k)
    rows = jnp.take_along_axis(rows, at, 1)
    merged = _Best(scores, rows, jnp.maximum(best.mate_score, mates.max(-1)))
    everywhere = NamedSharding(mesh, PartitionSpec())
    return jax.lax.with_sharding_constraint(merged, everywhere)
