"""Depthwise convolution: every channel on its own."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike


def depthwise_conv(
    x: Array, kernel: Array, *, stride: int, padding: int | tuple[int, int]
) -> Array:
    """Sum of shifted images, each times its kernel element.

    XLA's grouped convolution takes five to ten times as long on a CPU.

    Args:
      x: [B, H, W, C].
      kernel: [h, w, 1, C].
      stride: in both directions.
      padding: zeros on each side, or before and after.
    Returns: [B, (H + 2 padding - h) // stride + 1, alike for W, C].
    """
    height, width = kernel.shape[:2]
    sides = (padding, padding) if isinstance(padding, int) else padding
    x = jnp.pad(x, ((0, 0), sides, sides, (0, 0)))
    if x.shape[1:3] == (height, width):
        return jnp.einsum("bhwc,hwc->bc", x, kernel[:, :, 0])[:, None, None]
    rows = (x.shape[1] - height) // stride * stride + 1
    columns = (x.shape[2] - width) // stride * stride + 1
    return sum(
        kernel[i, j, 0] * x[:, i : i + rows : stride, j : j + columns : stride]
        for i in range(height)
        for j in range(width)
    )


class DepthwiseConv(nn.Module):
    """`depthwise_conv`; its kernel and bias are named and shaped as `nn.Conv`'s.

    Attributes:
      size: (height, width) of the kernel.
      stride: in both directions.
      padding: pixels on each side, or before and after.
      dtype: compute type.
      kernel_init: of the kernel, [h, w, 1, C].
      use_bias: whether it adds one.
    """

    size: tuple[int, int]
    stride: int = 1
    padding: int | tuple[int, int] = 0
    dtype: DTypeLike = jnp.float32
    kernel_init: nn.initializers.Initializer = nn.initializers.variance_scaling(
        2.0, "fan_out", "normal"
    )
    use_bias: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, H, W, C] -> [B, h, w, C]."""
        kernel = self.param("kernel", self.kernel_init, (*self.size, 1, x.shape[-1]))
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        x = depthwise_conv(x, kernel, stride=self.stride, padding=self.padding)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
            x = x + bias.astype(self.dtype)
        return x
