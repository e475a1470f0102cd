"""What the convolutional face networks are made of."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike


class PRelu(nn.Module):
    """Leaky ReLU with a learned slope per channel, or one for all.

    Attributes:
      shared: one slope for all channels.
    """

    shared: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[..., C] -> [..., C]."""
        count = 1 if self.shared else x.shape[-1]
        slope = self.param("slope", nn.initializers.constant(0.25), (count,))
        return jnp.where(x >= 0, x, x * slope.astype(x.dtype))


def conv(
    width: int,
    size: int,
    stride: int,
    dtype: DTypeLike,
    name: str | None = None,
    *,
    bias: bool = False,
) -> nn.Conv:
    """Square convolution whose map keeps its size, divided by the stride, rounded up.

    Args:
      width: output channels.
      size: side of the kernel, odd.
      stride: in both directions.
      dtype: compute type.
      name: of the module, where its parent is compact.
      bias: whether it adds one.
    """
    return nn.Conv(
        width,
        (size, size),
        strides=stride,
        padding=size // 2,
        use_bias=bias,
        kernel_init=nn.initializers.variance_scaling(2.0, "fan_out", "normal"),
        dtype=dtype,
        name=name,
    )
