"""Stochastic depth: drop a residual branch for some samples of the batch."""

import jax
import jax.numpy as jnp
from jax import Array


def drop_path(branch: Array, rate: Array | float, rng: Array) -> Array:
    """Zero the branch of a sample with probability `rate`; rescale the others.

    Args:
      branch: [B, ...], output of a residual branch.
      rate: scalar in [0, 1); may be traced, so that layers under `nn.scan` differ.
      rng: key.
    Returns: [B, ...], of expectation `branch`.
    """
    shape = (branch.shape[0],) + (1,) * (branch.ndim - 1)
    keep = jax.random.bernoulli(rng, 1.0 - rate, shape)
    # One factor a sample: the backward pass keeps nothing of the branch's size.
    factor = keep.astype(jnp.float32) / (1.0 - rate)
    return (branch * factor).astype(branch.dtype)
