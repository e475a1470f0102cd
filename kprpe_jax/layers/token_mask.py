"""Random token masking: training without some of the patches."""

import jax
import jax.numpy as jnp
from jax import Array


def random_token_mask(rng: Array, batch: int, tokens: int, mask_ratio: float) -> Array:
    """Hide the same number of random tokens in every sample.

    Hidden tokens are no keys for the others, so the visible ones get the values that
    they would get had the hidden ones been cut out, at fixed shapes.

    Args:
      rng: key.
      batch, tokens: B, N.
      mask_ratio: share to hide, in (0, 1); the count is rounded up, at least one token
        stays.
    Returns: bool [B, N], True = visible.
    """
    visible = max(int(tokens * (1 - mask_ratio)), 1)
    noise = jax.random.uniform(rng, (batch, tokens))
    rank = jnp.argsort(jnp.argsort(noise, axis=-1), axis=-1)
    return rank < visible
