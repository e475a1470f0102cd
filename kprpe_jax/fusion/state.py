"""State of a stream of images: three sums per cluster.

Sums do not care about order or grouping: `merge` is associative and commutative with
`init_state` as its neutral element. So a probe of any length is fused in constant
memory, in batches of any size, on several devices, today and tomorrow.

Source: Cluster and Aggregate, Eq. 7 and 8.
"""

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import Array

State = TypeVar("State", bound=tuple)

ROW_SUMS = ("exact", "at_least_one")


class FusionState(NamedTuple):
    """Sums over the images so far.

    Attributes:
      features: float32 [B, M, D], sum of A F.
      styles: float32 [B, M, d], sum of A S.
      mass: float32 [B, M], sum of A; over the clusters, the number of images.
    """

    features: Array
    styles: Array
    mass: Array


class Clusters(NamedTuple):
    """Means of the clusters, F' and S' of Eq. 5.

    Attributes:
      features: float32 [B, M, D].
      styles: float32 [B, M, d].
    """

    features: Array
    styles: Array


def init_state(
    batch: int, *, num_clusters: int, embed_dim: int, style_dim: int
) -> FusionState:
    """State of sets without images.

    Args:
      batch: B, number of sets.
      num_clusters, embed_dim, style_dim: M, D, d.
    """
    shape = (batch, num_clusters)
    return FusionState(
        jnp.zeros((*shape, embed_dim)), jnp.zeros((*shape, style_dim)), jnp.zeros(shape)
    )


def update(
    state: FusionState,
    assignment: Array,
    features: Array,
    styles: Array,
    *,
    row_sums: str = "exact",
) -> FusionState:
    """Add a batch of images to each set.

    The official code mixes means: (a F' + a_t F'_t) / (a + a_t) with F'_t = A_t F_t /
    max(a_t, 1). The same in sums: A_t F_t a_t / max(a_t, 1). It differs from Eq. 7
    where a cluster got less than one image's mass in a batch; the result then depends
    on how the images were split, still not on the order of the batches.

    Args:
      state: of B sets.
      assignment: A [B, M, N]; 0 for padding.
      features: values F [B, N, D]; finite, for padding, too.
      styles: values S [B, N, d]; finite, for padding, too.
      row_sums: `exact`: Eq. 7; `at_least_one`: as in the official code, max(a_t, 1)
        taken for a constant by the gradient.
    Raises: ValueError: unknown row_sums; shapes do not fit the state.
    """
    if row_sums not in ROW_SUMS:
        raise ValueError(
            f"update: unknown row_sums {row_sums!r}; use one of {ROW_SUMS}."
        )
    sets, clusters, images = assignment.shape
    want = [
        (sets, clusters, features.shape[-1]),
        (sets, clusters, styles.shape[-1]),
        (sets, clusters),
    ]
    images_fit = features.shape[:2] == styles.shape[:2] == (sets, images)
    if [x.shape for x in state] != want or not images_fit:
        raise ValueError(
            "update: assignment [B, M, N], features [B, N, D] and styles [B, N, d] "
            f"must fit each other and the state; got {assignment.shape}, "
            f"{features.shape} and {styles.shape} for {[x.shape for x in state]}; "
            "continue a stream with the model and the embeddings that began it."
        )
    mass = assignment.sum(-1)

    def weighted(values: Array) -> Array:
        total = jnp.einsum("bmn,bnd->bmd", assignment, values.astype(jnp.float32))
        if row_sums == "at_least_one":
            total *= (mass / jax.lax.stop_gradient(jnp.maximum(mass, 1.0)))[..., None]
        return total

    return merge(state, FusionState(weighted(features), weighted(styles), mass))


def merge(first: FusionState, second: FusionState) -> FusionState:
    """State of both streams' images.

    Raises: ValueError: the states are of different sets, clusters or embeddings.
    """
    return add_states(first, second)


def add_states(first: State, second: State) -> State:
    """Merge two states of one kind that are sums alone.

    Raises: ValueError: as `check_mergeable`.
    """
    check_mergeable(first, second)
    return jax.tree.map(jnp.add, first, second)


def check_mergeable(first: Sequence[Array], second: Sequence[Array]) -> None:
    """Raise ValueError unless the arrays of two states have the same shapes."""
    shapes = [x.shape for x in first], [x.shape for x in second]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"merge: both states must have the same shapes; got {shapes[0]} and "
            f"{shapes[1]}; merge streams of one model and of the same number of sets."
        )


def merge_devices(state: FusionState, axis: str | tuple[str, ...]) -> FusionState:
    """Merge the states of all devices; inside `jax.shard_map`.

    Args:
      state: of the images that this device has seen.
      axis: mesh axes that the images are spread over.
    """
    # One array, so that it is one collective.
    parts = jnp.concatenate([*state[:2], state.mass[..., None]], axis=-1)
    embed, style = state.features.shape[-1], state.styles.shape[-1]
    total = jax.lax.psum(parts, axis)
    return FusionState(
        total[..., :embed], total[..., embed : embed + style], total[..., -1]
    )


def finalize(state: FusionState, *, minimum_mass: float = 1e-12) -> Clusters:
    """Divide: F' and S'.

    Source: Cluster and Aggregate, Eq. 3, 5 and 7.

    Args:
      state: of B sets.
      minimum_mass: divisor from which on the means shrink toward 0, so that a cluster
        without images, and a set without any, is 0; 1e-6 in the official code.
    """
    divisor = jnp.maximum(state.mass, minimum_mass)[..., None]
    return Clusters(state.features / divisor, state.styles / divisor)
