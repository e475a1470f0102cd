"""Convolutions that turn silhouettes into feature maps, frame by frame or over time."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from kprpe_jax.layers.batch_norm import BatchNorm


class GaitStem(nn.Module):
    """A convolution and stages of residual blocks.

    Source: Fan et al., Exploring deep models for practical gait recognition, 2023; with
    four stages that of OpenGait's GaitBase.

    Attributes:
      channels, depths, strides: of the stages; a stride is of a stage's first block.
      temporal: blocks of the second stage span three frames.
      max_pool: whether a 3 x 3 pooling with stride 2 stands before the stages.
      dtype: compute type; statistics are float32.
    """

    channels: tuple[int, ...]
    depths: tuple[int, ...]
    strides: tuple[int, ...]
    temporal: bool = False
    max_pool: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, silhouettes: Array, mask: Array, *, train: bool) -> Array:
        """[B, T, H, W] -> [B T, h, w, C]; mask: bool [B, T].

        Frames that the mask leaves out become empty and enter no statistics.
        """
        x = jnp.where(mask[:, :, None, None], silhouettes, 0).astype(self.dtype)
        x = x.reshape(-1, *x.shape[2:], 1)
        x = _conv(self.channels[0], 3, 1, self.dtype, "conv")(x)
        x = nn.relu(_norm("norm", x, mask, train))
        if self.max_pool:
            x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        for stage, width in enumerate(self.channels):
            for index in range(self.depths[stage]):
                block = ResidualBlock(
                    width,
                    stride=1 if index else self.strides[stage],
                    temporal=self.temporal and stage == 1,
                    dtype=self.dtype,
                    name=f"blocks_{stage}_{index}",
                )
                x = block(x, mask, train)
        return x


class ResidualBlock(nn.Module):
    """Convolution, norm, ReLU, convolution, norm; plus a shortcut; ReLU.

    With `temporal` a residual convolution over three frames stands between the two.
    """

    width: int
    stride: int
    temporal: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Array, mask: Array, train: bool) -> Array:
        """[B T, h, w, C] -> [B T, h / stride, w / stride, width]; mask: bool [B, T]."""
        branch = _conv(self.width, 3, self.stride, self.dtype, "conv1")(x)
        branch = nn.relu(_norm("norm1", branch, mask, train))
        if self.temporal:
            over_time = nn.Conv(
                self.width, (3, 1), use_bias=False, dtype=self.dtype, name="conv_time"
            )
            frames = branch.reshape(*mask.shape, -1, self.width)
            moved = over_time(frames).reshape(branch.shape)
            branch = nn.relu(branch + _norm("norm_time", moved, mask, train))
        branch = _conv(self.width, 3, 1, self.dtype, "conv2")(branch)
        branch = _norm("norm2", branch, mask, train)
        if self.stride > 1 or x.shape[-1] != self.width:
            x = _conv(self.width, 1, self.stride, self.dtype, "shortcut_conv")(x)
            x = _norm("shortcut_norm", x, mask, train)
        return nn.relu(branch + x)


def _conv(width: int, size: int, stride: int, dtype: DTypeLike, name: str) -> nn.Conv:
    return nn.Conv(
        width, (size, size), strides=stride, padding=size // 2, use_bias=False,
        dtype=dtype, name=name,
    )  # fmt: skip


def _norm(name: str, x: Array, mask: Array, train: bool) -> Array:
    """Batch norm with statistics of valid frames only; mask: bool [B, T]."""
    known = jnp.broadcast_to(mask.reshape(-1, 1, 1), x.shape[:3])
    return BatchNorm(name=name)(x, known, train=train).astype(x.dtype)
