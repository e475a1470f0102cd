"""Vectors of length one."""

import jax
import jax.numpy as jnp
from jax import Array


def unit(x: Array, minimum_norm: float = 1e-8) -> Array:
    """Divide by the L2 norm of the last axis, kept above `minimum_norm`.

    Args:
      x: [..., D], any floating type.
      minimum_norm: > 0; shorter vectors come out shorter than one.
    Returns: float32, same shape; zero vectors stay zero, with finite gradients.
    """
    x = x.astype(jnp.float32)
    squared = jnp.square(x).sum(-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(squared, minimum_norm**2))


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
