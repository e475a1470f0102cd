"""State of a stream's weighted mean, for log weights of any size.

As `fusion.state`, a commutative monoid: `merge` is associative and commutative up to
round-off, with `init_state` as its neutral element. Weights come as logarithms and are
kept relative to the largest so far, so that none overflows.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from kprpe_jax.fusion.state import check_mergeable

_LOWEST = float(jnp.finfo(jnp.float32).min)


class WeightedState(NamedTuple):
    """Sums over the images so far; K is 1, or D for weights of each channel.

    Attributes:
      peak: float32 [B, K], largest log weight; the lowest float32 without images.
      total: float32 [B, D], sum of exp(log weight - peak) times the values.
      mass: float32 [B, K], sum of exp(log weight - peak).
    """

    peak: Array
    total: Array
    mass: Array


def init_state(batch: int, *, embed_dim: int, weight_dim: int = 1) -> WeightedState:
    """State of B sets without images; weight_dim is K."""
    weights = jnp.zeros((batch, weight_dim))
    return WeightedState(weights + _LOWEST, jnp.zeros((batch, embed_dim)), weights)


def update(
    state: WeightedState, values: Array, log_weights: Array, mask: Array
) -> WeightedState:
    """Add images to each set.

    Args:
      state: of B sets.
      values: [B, N, D]; finite, for padding, too.
      log_weights: [B, N, K]; padding may hold anything.
      mask: bool [B, N].
    Raises: ValueError: shapes do not fit the state.
    """
    sets, images, _ = values.shape
    fits = [x.shape[-1] for x in state] == [
        log_weights.shape[-1],
        values.shape[-1],
        log_weights.shape[-1],
    ]
    given = [x.shape[:2] for x in (values, log_weights, mask)]
    if not fits or given != [(sets, images)] * 3 or state.peak.shape[0] != sets:
        raise ValueError(
            "update: values [B, N, D], log_weights [B, N, K] and mask [B, N] must fit "
            f"each other and the state; got {values.shape}, {log_weights.shape} and "
            f"{mask.shape} for {[x.shape for x in state]}; continue a stream with the "
            "model and the embeddings that began it."
        )
    logs = jnp.where(mask[..., None], log_weights.astype(jnp.float32), _LOWEST)
    # Any peak gives the same mean: none of its gradient is missed.
    peak = jax.lax.stop_gradient(logs.max(1, initial=_LOWEST))
    weights = jnp.where(mask[..., None], jnp.exp(logs - peak[:, None]), 0.0)
    total = (weights * values.astype(jnp.float32)).sum(1)
    return merge(state, WeightedState(peak, total, weights.sum(1)))


def merge(first: WeightedState, second: WeightedState) -> WeightedState:
    """State of both streams' images.

    Raises: ValueError: the states are of different sets or embeddings.
    """
    check_mergeable(first, second)
    peak = jnp.maximum(first.peak, second.peak)
    one, other = jnp.exp(first.peak - peak), jnp.exp(second.peak - peak)
    return WeightedState(
        peak,
        one * first.total + other * second.total,
        one * first.mass + other * second.mass,
    )


def finalize(state: WeightedState) -> Array:
    """Weighted mean, float32 [B, D]; 0 for sets without images, NaN stays NaN."""
    # The image at the peak has weight 1: a mass below is that of no image.
    mean = state.total / jnp.maximum(state.mass, 0.5)
    return jnp.where(state.mass <= 0.5, 0.0, mean)
