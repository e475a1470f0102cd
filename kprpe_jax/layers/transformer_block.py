"""Transformer block whose attention has the bias of a position encoding."""

import flax.linen as nn
from jax import Array
from jax.sharding import NamedSharding
from jax.typing import DTypeLike

from kprpe_jax.core.constraints import constrain
from kprpe_jax.layers.attention import Attention
from kprpe_jax.layers.drop_path import drop_path
from kprpe_jax.layers.layer_norm import LayerNorm
from kprpe_jax.layers.mlp import Mlp
from kprpe_jax.position.encoding import BiasTables
from kprpe_jax.position.lookup import BucketSet


class Block(nn.Module):
    """Attention, then MLP; each is normalized before and has stochastic depth.

    Attributes:
      num_heads: divides the width.
      mlp_dim, activation: of `Mlp`.
      dtype: compute type.
      attention: one of `attention.IMPLEMENTATIONS`.
      sharding: how tokens lie on the devices after the block; None leaves it to XLA.
    """

    num_heads: int
    mlp_dim: int
    activation: str
    dtype: DTypeLike
    attention: str
    sharding: NamedSharding | None

    @nn.compact
    def __call__(
        self,
        tokens: Array,
        tables: BiasTables,
        drop_rate: Array | None,
        buckets: BucketSet,
        key_mask: Array | None,
    ) -> tuple[Array, Array]:
        """[B, N, C] -> ([B, N, C], the same: the block's output for `nn.scan`).

        `drop_rate` is None in evaluation and where no layer drops.
        """
        norm = dict(epsilon=1e-5, dtype=self.dtype)
        attention = Attention(
            self.num_heads,
            dtype=self.dtype,
            implementation=self.attention,
            sharding=self.sharding,
            name="attention",
        )
        mlp = Mlp(self.mlp_dim, self.activation, dtype=self.dtype, name="mlp")

        branch = LayerNorm(**norm, name="norm1")(tokens)
        branch = attention(branch, tables, buckets, key_mask)
        if drop_rate is not None:
            branch = drop_path(branch, drop_rate, self.make_rng("dropout"))
        tokens += branch
        branch = mlp(LayerNorm(**norm, name="norm2")(tokens))
        if drop_rate is not None:
            branch = drop_path(branch, drop_rate, self.make_rng("dropout"))
        tokens = constrain(tokens + branch, self.sharding)
        return tokens, tokens
