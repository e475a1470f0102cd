"""Multi-head self-attention with position bias."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.nn.initializers import Initializer
from jax.sharding import NamedSharding
from jax.typing import DTypeLike

from kprpe_jax.layers.platforms import NO_KERNELS, kernel_platform
from kprpe_jax.position.encoding import BiasTables, position_bias
from kprpe_jax.position.lookup import BucketSet, lookup_rows, sum_rows

IMPLEMENTATIONS = ("xla", "pallas")


class Attention(nn.Module):
    """Softmax attention with a bias on the logits and contextual tables.

    Source: KP-RPE, Eq. 1, 2, 4 and 5. Logits and softmax are float32 whatever `dtype`
    is.

    Attributes:
      num_heads: divides the width.
      dtype: compute type of the projections and the two products.
      qkv_bias: bias in the q, k, v projection; the official vision transformers have
        none, the official set fusion has one.
      kernel_init: of both projections.
      implementation: one of IMPLEMENTATIONS; `pallas` is `fused_attention`, which some
        encodings have not.
      sharding: how tokens lie on the devices; `pallas` reads it.
    """

    num_heads: int
    dtype: DTypeLike = jnp.float32
    qkv_bias: bool = False
    kernel_init: Initializer = nn.initializers.lecun_normal()
    implementation: str = "xla"
    sharding: NamedSharding | None = None

    @nn.compact
    def __call__(
        self,
        tokens: Array,
        tables: BiasTables | None = None,
        buckets: BucketSet = (),
        key_mask: Array | None = None,
    ) -> Array:
        """Attend.

        Args:
          tokens: [B, N, C].
          tables: one layer's tables.
          buckets: bucket ids that the tables are read with.
          key_mask: bool [B, N], False = no query may look there.
        Returns: [B, N, C] in `dtype`.
        """
        tables = tables or BiasTables()
        width = tokens.shape[-1]
        head_dim = width // self.num_heads
        options = dict(dtype=self.dtype, kernel_init=self.kernel_init)
        dense = nn.Dense(3 * width, use_bias=self.qkv_bias, **options, name="qkv")
        qkv = dense(tokens)
        qkv = qkv.reshape(*tokens.shape[:2], 3, self.num_heads, head_dim)

        if self.implementation == "pallas" and kernel_platform() != NO_KERNELS:
            # Pallas takes a quarter of a second to import.
            from kprpe_jax.layers.fused_attention import fused_attention

            out = fused_attention(
                qkv, tables, buckets, key_mask, sharding=self.sharding
            )
        else:
            # Heads before tokens: the two products run twice as fast on a CPU.
            q, k, v = qkv.transpose(2, 0, 3, 1, 4)  # [B, H, N, d] each
            q = q * head_dim**-0.5
            out = attend(q, k, v, tables, buckets, key_mask).swapaxes(1, 2)
        return nn.Dense(width, **options, name="proj")(out.reshape(tokens.shape))


def attend(
    q: Array,
    k: Array,
    v: Array,
    tables: BiasTables,
    buckets: BucketSet,
    key_mask: Array | None,
) -> Array:
    """Attention with all tables that there are, as XLA computes it.

    Args:
      q: [B, H, N, d], scaled.
      k, v: [B, H, N, d].
      tables: one layer's.
      buckets: that they are read with.
      key_mask: bool [B, N], False = no query may look there.
    Returns: [B, H, N, d] in q's type.
    """
    num_heads, head_dim = q.shape[1], q.shape[-1]
    logits = jnp.einsum("bhid,bhjd->bhij", q, k, preferred_element_type=jnp.float32)
    logits += position_bias(tables, buckets, q.shape[0])
    if tables.context_k is not None:
        logits += lookup_rows(_project(q, tables.context_k), buckets)
    if tables.context_q is not None:
        scaled = k * head_dim**-0.5
        by_key = lookup_rows(_project(scaled, tables.context_q), buckets)
        logits += jnp.swapaxes(by_key, -1, -2)
    if key_mask is not None:
        logits = jnp.where(key_mask[:, None, None], logits, -jnp.inf)
    attention = softmax_weights(logits, q.dtype)

    out = jnp.einsum("bhij,bhjd->bhid", attention, v)
    if tables.context_v is not None:
        # [B, H, N, num_buckets]
        by_bucket = sum_rows(attention.astype(jnp.float32), buckets)
        table = jnp.broadcast_to(
            tables.context_v, (num_heads, *tables.context_v.shape[1:])
        )
        context = jnp.einsum("bhik,hkd->bhid", by_bucket, table)
        out += context.astype(q.dtype)
    return out


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def softmax_weights(logits: Array, dtype: DTypeLike) -> Array:
    """Softmax over the last axis, computed in float32 and rounded to `dtype`.

    The backward pass keeps the rounded weights alone, a third of what it keeps of a
    softmax and a cast in bfloat16. Only reverse mode is differentiated.

    Args:
      logits: float32 [..., N].
      dtype: of the weights.
    """
    return nn.softmax(logits).astype(dtype)


def _softmax_forward(logits: Array, dtype: DTypeLike) -> tuple[Array, Array]:
    weights = softmax_weights(logits, dtype)
    return weights, weights


def _softmax_backward(
    dtype: DTypeLike, weights: Array, gradient: Array
) -> tuple[Array]:
    weights, gradient = weights.astype(jnp.float32), gradient.astype(jnp.float32)
    pulled = weights * gradient
    return (pulled - weights * pulled.sum(-1, keepdims=True),)


softmax_weights.defvjp(_softmax_forward, _softmax_backward)


def _project(heads: Array, table: Array) -> Array:
    """Queries or keys [B, H, N, d] times a table [H', d, num_buckets] per head.

    Returns: float32 [B, H, N, num_buckets].
    """
    table = jnp.broadcast_to(table, (heads.shape[1], *table.shape[1:]))
    return jnp.einsum("bhid,hdk->bhik", heads.astype(jnp.float32), table)
