"""Cluster Network: softly assign the images of a set to clusters shared by all sets."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from kprpe_jax.layers.attention import Attention
from kprpe_jax.layers.drop_path import drop_path
from kprpe_jax.layers.mlp import Mlp

LINEAR_INIT = nn.initializers.truncated_normal(0.02)
NORM_EPSILON = 1e-5


def assign(queries: Array, keys: Array, mask: Array) -> Array:
    """Assignment map A.

    Source: Cluster and Aggregate, Eq. 2: the softmax runs over the clusters.

    Args:
      queries: C W_q, [M, d].
      keys: K W_k, [B, N, d].
      mask: bool [B, N].
    Returns: float32 [B, M, N]; columns sum to 1, those of padding are 0.
    """
    logits = jnp.einsum("md,bnd->bmn", queries, keys) * keys.shape[-1] ** -0.5
    return jnp.where(mask[:, None], jax.nn.softmax(logits, axis=1), 0.0)


class TransformerBlock(nn.Module):
    """Pre-norm attention and MLP over keys and centers."""

    num_heads: int
    drop_rate: float

    @nn.compact
    def __call__(self, tokens: Array, mask: Array, *, train: bool) -> Array:
        """[B, T, d], bool [B, T] -> [B, T, d]; masked tokens are not attended to."""
        norm = dict(epsilon=NORM_EPSILON)
        attention = Attention(
            self.num_heads, qkv_bias=True, kernel_init=LINEAR_INIT, name="attention"
        )
        mlp = Mlp(4 * tokens.shape[-1], "gelu", kernel_init=LINEAR_INIT, name="mlp")

        def dropped(branch: Array) -> Array:
            if not train or not self.drop_rate:
                return branch
            return drop_path(branch, self.drop_rate, self.make_rng("dropout"))

        branch = nn.LayerNorm(**norm, name="norm1")(tokens)
        tokens += dropped(attention(branch, key_mask=mask))
        return tokens + dropped(mlp(nn.LayerNorm(**norm, name="norm2")(tokens)))


class ClusterNetwork(nn.Module):
    """Keys of a set to its assignment map.

    Source: Cluster and Aggregate, Eq. 1-3. As in the official code the centers take
    part in the transformer as further tokens, but the queries are the learned centers
    themselves, and layer norms stand before W_q and W_k. Values are not touched here:
    `fusion.state` adds them up.

    Attributes:
      depth: blocks of the transformer; with 0 the assignment of an image does not
        depend on the others of its batch.
      num_heads: of the transformer; divides d.
      drop_path_rate: of the last block; grows linearly from 0.
    """

    depth: int = 2
    num_heads: int = 8
    drop_path_rate: float = 0.1

    @nn.compact
    def __call__(
        self, keys: Array, centers: Array, mask: Array, *, train: bool
    ) -> tuple[Array, Array]:
        """Assign.

        Args:
          keys: S [B, N, d].
          centers: C [M, d].
          mask: bool [B, N].
          train: drop paths; needs the rng stream `dropout` where the rate is not 0.
        Returns: A, float32 [B, M, N]; the keys transformed and layer-normed, float32
          [B, N, d].
        """
        sets, images, width = keys.shape
        shared = jnp.broadcast_to(centers, (sets, *centers.shape))
        tokens = jnp.concatenate([keys, shared], axis=1)
        visible = jnp.pad(mask, ((0, 0), (0, len(centers))), constant_values=True)
        for n in range(self.depth):
            rate = self.drop_path_rate * n / max(self.depth - 1, 1)
            block = TransformerBlock(self.num_heads, rate, name=f"block{n}")
            tokens = block(tokens, visible, train=train)

        norm, dense = dict(epsilon=NORM_EPSILON), dict(kernel_init=LINEAR_INIT)
        transformed = nn.LayerNorm(**norm, name="key_norm")(tokens[:, :images])
        queries = nn.LayerNorm(**norm, name="query_norm")(centers)
        projected = nn.Dense(width, **dense, name="key")(transformed)
        queries = nn.Dense(width, **dense, name="query")(queries)
        return assign(queries, projected, mask), transformed
