"""Layer normalization whose backward pass keeps little."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike


class LayerNorm(nn.Module):
    """Normalize the last axis; the parameters of Flax's layer.

    The backward pass keeps the input as it is, and per row a mean and a deviation. Of
    Flax's layer XLA keeps three float32 arrays of the input's shape, which in bfloat16
    are six times its memory.

    Attributes:
      epsilon: added to the variance.
      dtype: of the result; statistics are float32.
    """

    epsilon: float = 1e-5
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[..., C] -> [..., C] in `dtype`."""
        width = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (width,))
        bias = self.param("bias", nn.initializers.zeros, (width,))
        return layer_norm(x, scale, bias, self.epsilon, self.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def layer_norm(
    x: Array, scale: Array, bias: Array, epsilon: float, dtype: DTypeLike
) -> Array:
    """(x - mean) / sqrt(variance + epsilon) * scale + bias over the last axis.

    Only reverse mode is differentiated.

    Args:
      x: [..., C].
      scale, bias: float32 [C].
      epsilon: > 0.
      dtype: of the result.
    Returns: [..., C]; a constant row gives `bias`.
    """
    return _forward(x, scale, bias, epsilon, dtype)[0]


def _forward(
    x: Array, scale: Array, bias: Array, epsilon: float, dtype: DTypeLike
) -> tuple[Array, tuple[Array, ...]]:
    centered = x.astype(jnp.float32)
    mean = centered.mean(-1, keepdims=True)
    centered -= mean
    factor = jax.lax.rsqrt(jnp.square(centered).mean(-1, keepdims=True) + epsilon)
    y = centered * factor * scale + bias
    return y.astype(dtype), (x, mean, factor, scale)


def _backward(
    epsilon: float, dtype: DTypeLike, kept: tuple[Array, ...], gradient: Array
) -> tuple[Array, Array, Array]:
    x, mean, factor, scale = kept
    normalized = (x.astype(jnp.float32) - mean) * factor
    gradient = gradient.astype(jnp.float32)
    over_rows = tuple(range(x.ndim - 1))
    inner = gradient * scale
    inner -= inner.mean(-1, keepdims=True)
    inner -= normalized * (inner * normalized).mean(-1, keepdims=True)
    return (
        (inner * factor).astype(x.dtype),
        (gradient * normalized).sum(over_rows),
        gradient.sum(over_rows),
    )


layer_norm.defvjp(_forward, _backward)
