"""Tokens to one embedding."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.sharding import NamedSharding
from jax.typing import DTypeLike

from kprpe_jax.core.constraints import constrain
from kprpe_jax.layers.batch_norm import BatchNorm

POOLS = ("flatten", "mean")


class EmbeddingHead(nn.Module):
    """Pool, linear, batch norm, linear, batch norm.

    Source: KP-RPE, Fig. 4b and the official code. `flatten` is theirs: every token has
    its own weights, so the head itself knows absolute positions. `mean` averages the
    tokens, so position reaches the embedding only through the encoding.

    Attributes:
      output_dim: D, size of the embedding.
      pool: one of POOLS.
      dtype: compute type of the linear layers; norms and output are float32.
      sharding: how the vectors lie on the devices; None leaves it to XLA.
    """

    output_dim: int
    pool: str = "flatten"
    dtype: DTypeLike = jnp.float32
    sharding: NamedSharding | None = None

    @nn.compact
    def __call__(self, tokens: Array, *, train: bool) -> Array:
        """[B, N, C] -> float32 [B, output_dim], not normalized."""
        width = tokens.shape[-1]
        if self.pool == "flatten":
            pooled = tokens.reshape(tokens.shape[0], -1)
        else:
            pooled = tokens.astype(jnp.float32).mean(1)
        dense = dict(use_bias=False, dtype=self.dtype)
        x = nn.Dense(width, **dense, name="linear1")(constrain(pooled, self.sharding))
        x = constrain(x, self.sharding)
        x = BatchNorm(epsilon=2e-5, name="norm1")(x, train=train)
        x = nn.Dense(self.output_dim, **dense, name="linear2")(
            constrain(x, self.sharding)
        )
        x = constrain(x, self.sharding)
        x = BatchNorm(epsilon=2e-5, name="norm2")(x, train=train)
        return constrain(x, self.sharding)
