"""Transformer block whose attention stays inside windows, Swin V1 and V2."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

from kprpe_jax.layers.attention import softmax_weights
from kprpe_jax.layers.drop_path import drop_path
from kprpe_jax.layers.mlp import Mlp
from kprpe_jax.layers.windows import Windows, merge, pair_mask, partition
from kprpe_jax.position.window_bias import OffsetBias

VERSIONS = ("v1", "v2")


class WindowAttention(nn.Module):
    """Self-attention inside windows; logits and softmax are float32.

    Source: Liu et al., Swin Transformer, 2021, Sec. 3.2, and V2, 2022, Sec. 3.2. `v1`
    compares queries and keys by scaled dot product, `v2` by cosine with a learned
    temperature per head, at most 100; `v2` keys have no bias.

    Attributes:
      num_heads: divides the width.
      version: one of VERSIONS.
      window: that the table of offsets is made for.
      offset_bias: `table`, `continuous` or `none` (the bias comes in from outside).
      mask_padding: of `pair_mask`.
      dtype: compute type of the projections and the two products.
    """

    num_heads: int
    version: str
    window: tuple[int, ...]
    offset_bias: str
    mask_padding: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(self, maps: Array, plan: Windows, bias: Array | None = None) -> Array:
        """Attend.

        Args:
          maps: [B, *grid, C].
          plan: how the maps are cut.
          bias: float32 [B, windows, H, N, N] on the logits.
        Returns: [B, *grid, C] in `dtype`.
        """
        width = maps.shape[-1]
        x = partition(maps, plan)
        dense = nn.Dense(3 * width, use_bias=False, dtype=self.dtype, name="qkv")
        offset = self.param("qkv_bias", nn.initializers.zeros, (3, width))
        if self.version == "v2":
            offset = offset * np.array([[1], [0], [1]], np.float32)
        qkv = dense(x) + offset.reshape(-1).astype(self.dtype)
        qkv = qkv.reshape(*x.shape[:3], 3, self.num_heads, -1)
        q, k, v = qkv.transpose(3, 0, 1, 4, 2, 5)  # [B, windows, H, N, d] each
        if self.version == "v2":
            log_scale = self.param(
                "logit_scale",
                nn.initializers.constant(np.log(10.0)),
                (self.num_heads, 1, 1),
            )
            q = _unit(q) * jnp.exp(jnp.minimum(log_scale, np.log(100.0)))
            k = _unit(k)
        else:
            q = q * q.shape[-1] ** -0.5
        logits = jnp.einsum(
            "bwhid,bwhjd->bwhij", q, k, preferred_element_type=jnp.float32
        )
        if self.offset_bias != "none":
            table = OffsetBias(
                self.num_heads,
                self.window,
                continuous=self.offset_bias == "continuous",
                name="offset_bias",
            )
            logits += table(plan.window)
        if bias is not None:
            logits += bias
        mask = pair_mask(plan, mask_padding=self.mask_padding)
        if not mask.all():
            logits = jnp.where(mask[:, None], logits, -jnp.inf)
        attention = softmax_weights(logits, self.dtype)
        out = jnp.einsum("bwhij,bwhjd->bwihd", attention, v)
        out = nn.Dense(width, dtype=self.dtype, name="proj")(out.reshape(x.shape))
        return merge(out, plan)


class WindowBlock(nn.Module):
    """Window attention, then MLP: `v1` normalizes before each, `v2` after.

    Attributes: `mlp_dim`, else as `WindowAttention`.
    """

    num_heads: int
    version: str
    window: tuple[int, ...]
    offset_bias: str
    mask_padding: bool
    mlp_dim: int
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self,
        maps: Array,
        plan: Windows,
        bias: Array | None = None,
        drop_rate: float = 0.0,
    ) -> Array:
        """[B, *grid, C] -> [B, *grid, C]; `drop_rate` > 0 needs the rng `dropout`."""
        attention = WindowAttention(
            self.num_heads,
            self.version,
            self.window,
            self.offset_bias,
            self.mask_padding,
            self.dtype,
            name="attention",
        )
        mlp = Mlp(self.mlp_dim, "gelu", dtype=self.dtype, name="mlp")
        norm1, norm2 = (
            nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name=name)
            for name in ("norm1", "norm2")
        )

        def drop(branch: Array) -> Array:
            if drop_rate == 0.0:
                return branch
            return drop_path(branch, drop_rate, self.make_rng("dropout"))

        if self.version == "v1":
            maps += drop(attention(norm1(maps), plan, bias))
            return maps + drop(mlp(norm2(maps)))
        maps += drop(norm1(attention(maps, plan, bias)))
        return maps + drop(norm2(mlp(maps)))


def _unit(x: Array) -> Array:
    """x / |x|, float32; 0 with gradient 0 where x is 0, as queries of padding are."""
    x = x.astype(jnp.float32)
    square = jnp.square(x).sum(-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.where(square > 1e-24, square, jnp.inf))
