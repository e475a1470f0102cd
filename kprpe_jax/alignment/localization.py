"""Localization network: images to the parameters of a warp."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from kprpe_jax.layers.batch_norm import BatchNorm
from kprpe_jax.layers.convolution import conv

WIDTHS = (8, 16, 32, 64, 64)
POOLS = ("average", "flatten")


class BasicBlock(nn.Module):
    """Two convolutions and a shortcut (ResNet-18)."""

    width: int
    stride: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """[B, h, w, C] -> [B, h / stride, w / stride, width]."""
        y = _conv_norm(self, x, 3, self.stride, train, "1")
        y = _conv_norm(self, nn.relu(y), 3, 1, train, "2")
        if y.shape != x.shape:
            x = _conv_norm(self, x, 1, self.stride, train, "_shortcut")
        return nn.relu(x + y)


class LocalizationNet(nn.Module):
    """Slim ResNet-18 whose outputs start at zero: at the identity.

    Source: Balanced Alignment, Sec. 4.1. Stage 0 is a 3 x 3 convolution at full
      resolution, as that of the paper's Table 1.

    Attributes:
      num_outputs: P.
      widths: channels of stages 0 to 4.
      blocks: residual blocks of stages 1 to 4; 2 in ResNet-18.
      pool: what the last layer reads: "average", the mean of the last map, as in
        ResNet-18; "flatten", the whole map, which keeps where things are.
      dtype: compute type; norms and outputs are float32.
    """

    num_outputs: int
    widths: tuple[int, ...] = WIDTHS
    blocks: int = 2
    pool: str = "average"
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: Array, *, train: bool) -> Array:
        """Estimate.

        Args:
          images: [B, H, W, 3] in [-1, 1].
          train: use and collect batch statistics.
        Returns: float32 [B, num_outputs].
        Raises: ValueError: unknown pool.
        """
        if self.pool not in POOLS:
            raise ValueError(
                f"LocalizationNet: pool must be one of {', '.join(POOLS)}; got "
                f"{self.pool!r}; choose one"
            )
        options = dict(dtype=self.dtype)
        x = nn.Conv(
            self.widths[0], (3, 3), use_bias=False, **options, name="stem_conv"
        )(images.astype(self.dtype))
        x = nn.relu(BatchNorm(name="stem_norm")(x, train=train)).astype(self.dtype)
        for stage, width in enumerate(self.widths[1:], start=1):
            for index in range(self.blocks):
                stride = 1 if index else 2
                block = BasicBlock(
                    width, stride, **options, name=f"stage{stage}_{index}"
                )
                x = block(x, train)
        x = x.astype(jnp.float32)
        x = x.mean((1, 2)) if self.pool == "average" else x.reshape(x.shape[0], -1)
        zeros = nn.initializers.zeros
        return nn.Dense(self.num_outputs, kernel_init=zeros, name="out")(x)


def _conv_norm(
    block: BasicBlock, x: Array, size: int, stride: int, train: bool, name: str
) -> Array:
    """Convolution without bias and batch norm, inside of a block."""
    x = conv(block.width, size, stride, block.dtype, f"conv{name}")(x)
    return BatchNorm(name=f"norm{name}")(x, train=train).astype(block.dtype)
