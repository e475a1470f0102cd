"""Vectors of length one."""

import jax
import jax.numpy as jnp
from jax import Array


def unit(x: Array, minimum_norm: float = 1e-8) -> Array:
    """Divide by the L2 norm of the last axis, kept above `minimum_norm`.

    Args:
      x: [..., D], any floating type.
      minimum_norm: > 0; shorter vectors come out shorter than one.
    Returns: float32, same shape; zero vectors stay zero, with finite gradients. Vectors
      longer than 1e19, whose square float32 does not hold, come out as zero: where
      what a network gives is judged, `direction` does not.
    """
    x = x.astype(jnp.float32)
    squared = jnp.square(x).sum(-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(squared, minimum_norm**2))


def direction(x: Array) -> Array:
    """Divide by the L2 norm of the last axis, however long or short the vector is.

    Args:
      x: [..., D], any floating type.
    Returns: float32, same shape; zero vectors stay zero, also where they differ from
      zero by less than float32 can calculate with (1.2e-38). The gradient grows as
      vectors get short; to train with, `unit` bounds it.
    """
    x = x.astype(jnp.float32)
    largest = jnp.abs(x).max(-1, keepdims=True)
    # No square is too large or too small then, and a power of two rounds nothing.
    scale = jnp.select(
        [largest < jnp.finfo(jnp.float32).tiny, largest < 1e-11, largest > 1e16],
        [0.0, 2.0**90, 2.0**-90],
        1.0,
    )
    return unit(x * scale, 1e-12)


def soft_unit(x: Array, added: float = 1e-5) -> Array:
    """Divide by the L2 norm of the last axis plus a constant.

    Source: the official code of Cluster and Aggregate.

    Args:
      x: [..., D], any floating type.
      added: > 0, to the norm.
    Returns: float32, same shape, a little shorter than one; zero vectors stay zero.
    """
    x = x.astype(jnp.float32)
    squared = jnp.square(x).sum(-1, keepdims=True)
    return x / (jnp.sqrt(jnp.maximum(squared, 1e-24)) + added)
