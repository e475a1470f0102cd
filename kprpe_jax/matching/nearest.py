"""Exact nearest neighbors by cosine, over a gallery on any mesh or larger than it."""

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


class Ranking(NamedTuple):
    """Gallery rows in the order of similarity to each query.

    Attributes:
      rows: int32 [Q, ranks], of the gallery; -1 where there is no further one.
      scores: float32 [Q, ranks], -inf where there is none.
    """

    rows: np.ndarray
    scores: np.ndarray


class Index(Protocol):
    """A gallery that can be searched by cosine, exactly or not."""

    def __len__(self) -> int:
        """Rows of the gallery."""

    def search(self, queries: ArrayLike, k: int) -> Ranking:
        """The k nearest rows of each query [Q, D]; 1 <= k <= size of the gallery."""


class ExactIndex:
    """All rows are compared.

    The gallery is cut into blocks of one size. As many as are asked for stay on the
    devices, sharded over all axes of the mesh; the others are sent there with every
    search. One program serves all blocks; a block leaves k rows a device behind.
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
        if mesh is None:
            mesh = Mesh(np.array(jax.devices()[:1]), ("data",))
        self._mesh, self._rows = auto_axes(mesh), embeddings
        size = min(block, len(embeddings))
        self._block = -(-size // mesh.size) * mesh.size
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
        finite("ExactIndex", np.asarray(queries))
        everywhere = NamedSharding(self._mesh, PartitionSpec())
        queries = jax.device_put(_unit(jnp.asarray(queries)), everywhere)
        nothing = (len(queries), k)
        best = jax.device_put(
            (jnp.full(nothing, -jnp.inf), jnp.full(nothing, -1, jnp.int32)), everywhere
        )
        for number, start in enumerate(range(0, len(self), self._block)):
            resident = number < len(self._placed)
            part = self._placed[number] if resident else self._place(start)
            count = min(len(self) - start, self._block)
            limits = jnp.int32(start), jnp.int32(count)
            best = _merge(best, queries, part, *limits, mesh=self._mesh)
        scores, rows = jax.device_get(best)
        return Ranking(rows, scores)

    def _place(self, start: int) -> Array:
        """A block, of which every process reads what its own devices hold."""
        over_all = NamedSharding(self._mesh, PartitionSpec(self._mesh.axis_names))

        def read(at: tuple[slice, slice]) -> np.ndarray:
            first, last, _ = at[0].indices(self._block)
            rows = self._rows[start + first : start + last]
            rows = finite("ExactIndex", rows, start=start + first)
            return np.pad(rows, ((0, last - first - len(rows)), (0, 0)))

        shape = self._block, *self._rows.shape[1:]
        return _unit(jax.make_array_from_callback(shape, over_all, read))


def check_search(name: str, queries: ArrayLike, gallery: ArrayLike, k: int) -> None:
    """Raise ValueError unless a search makes sense."""
    if np.ndim(queries) != 2 or queries.shape[1:] != gallery.shape[1:]:
        raise ValueError(
            f"{name}: queries must be [Q, {gallery.shape[1]}] as the gallery is wide; "
            f"got {np.shape(queries)}; use one network for both."
        )
    if not 1 <= k <= len(gallery):
        raise ValueError(
            f"{name}: k must lie between 1 and the size of the gallery, "
            f"{len(gallery)}; got {k}."
        )


_unit = jax.jit(direction)


@partial(jax.jit, static_argnames="mesh", donate_argnums=0)
def _merge(
    best: tuple[Array, Array],
    queries: Array,
    part: Array,
    start: Array,
    count: Array,
    *,
    mesh: Mesh,
) -> tuple[Array, Array]:
    """The best of what was found and one more block.

    Args:
      best: float32 and int32 [Q, k], scores and rows.
      queries: [Q, D], unit.
      part: [block, D], unit, sharded over its rows.
      start: row of the gallery with which the block begins.
      count: rows of the block that are there.
    """
    axes = mesh.axis_names
    k = best[0].shape[1]

    def local(queries: Array, part: Array) -> tuple[Array, Array]:
        exact = jax.lax.Precision.HIGHEST
        scores = jnp.matmul(queries, part.T, precision=exact)
        own = jax.lax.axis_index(axes) * len(part)
        there = own + jnp.arange(len(part)) < count
        scores, at = jax.lax.top_k(
            jnp.where(there, scores, -jnp.inf), min(k, len(part))
        )
        return scores, start + own + at

    found = jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec(axes)),
        out_specs=PartitionSpec(None, axes),
        check_vma=False,
    )(queries, part)
    # Earlier rows stand first, and top_k takes the first of equals.
    scores, rows = (jnp.concatenate(x, 1) for x in zip(best, found, strict=True))
    scores, at = jax.lax.top_k(scores, k)
    rows = jnp.take_along_axis(rows, at, 1)
    everywhere = NamedSharding(mesh, PartitionSpec())
    return jax.lax.with_sharding_constraint((scores, rows), everywhere)
