"""BlazeFace: single-shot face detectors for images of 128 or 192 pixels.

Source: Bazarevsky et al., BlazeFace, 2019; MediaPipe's models of short and full range,
whose layers these are.
"""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from kprpe_jax.geometry.sampling import resize_bilinear
from kprpe_jax.layers.convolution import PRelu
from kprpe_jax.layers.depthwise import DepthwiseConv

BLAZE_KEYPOINTS = 6  # eyes, nose, middle of the mouth, ears; left in the image first
_OFFSETS = 4 + 2 * BLAZE_KEYPOINTS  # a box and keypoints


class BlazeOutput(NamedTuple):
    """Raw outputs per anchor.

    Attributes:
      offsets: float32 [B, A, 16], center, size and six keypoints, in pixels from the
        anchor's center.
      logits: float32 [B, A], of a face.
    """

    offsets: Array
    logits: Array


class BlazeUnit(nn.Module):
    """Depthwise and 1 x 1 convolutions plus the input, then an activation.

    Attributes:
      widths: output channels of the 1 x 1 convolutions; after all but the last ReLU.
      stride: of the first convolution; with 2 the input's largest of 2 x 2 is added.
      learned: PReLU in place of ReLU.
      dtype: compute type.
    """

    widths: tuple[int, ...]
    stride: int = 1
    learned: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, h, w, C] -> [B, h / stride, w / stride, widths[-1]], C at most that."""
        y = x
        for number, width in enumerate(self.widths):
            stride = 1 if number else self.stride
            y = nn.relu(y) if number else y
            y = DepthwiseConv(
                (3, 3),
                stride,
                (0, 1) if stride == 2 else 1,  # as TensorFlow pads even sides
                self.dtype,
                use_bias=True,
                name=f"depthwise{number}",
            )(y)
            y = nn.Conv(width, (1, 1), dtype=self.dtype, name=f"pointwise{number}")(y)
        if self.stride == 2:
            x = nn.max_pool(x, (2, 2), strides=(2, 2))
        more = y.shape[-1] - x.shape[-1]
        y = y + jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, more)))
        return PRelu(name="act")(y) if self.learned else nn.relu(y)


class BlazeFaceShort(nn.Module):
    """Detector of faces within two meters, for selfies.

    Attributes:
      image_size: (height, width) of the images.
      anchors: (cells along the image's side, anchors per cell) of each map.
      dtype: compute type; outputs are float32.
    """

    image_size: tuple[int, int] = (128, 128)
    anchors: tuple[tuple[int, int], ...] = ((16, 2), (8, 6))
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: Array) -> BlazeOutput:
        """[B, 128, 128, 3], RGB in [-1, 1] -> outputs of 896 anchors."""
        stem = nn.Conv(24, (5, 5), 2, dtype=self.dtype, name="stem")
        x = nn.relu(stem(images.astype(self.dtype)))
        widths = (24, 28, 32, 36, 42, 48, 56, 64, 72, 80, 88, 96, 96, 96, 96, 96)
        maps = []
        for number, width in enumerate(widths):
            halve = width in (32, 48, 96) and width > widths[number - 1]
            if halve and width == 96:
                maps.append(x)
            stride = 2 if halve else 1
            unit = BlazeUnit((width,), stride, dtype=self.dtype, name=f"unit{number}")
            x = unit(x)
        return _heads([*maps, x], self.anchors, self.dtype)


class BlazeFaceFull(nn.Module):
    """Detector of faces within five meters.

    Attributes:
      image_size: (height, width) of the images.
      anchors: (cells along the image's side, anchors per cell) of each map.
      dtype: compute type; outputs are float32.
    """

    image_size: tuple[int, int] = (192, 192)
    anchors: tuple[tuple[int, int], ...] = ((48, 1),)
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: Array) -> BlazeOutput:
        """[B, 192, 192, 3], RGB in [-1, 1] -> outputs of 2304 anchors."""
        stem = nn.Conv(32, (3, 3), 2, dtype=self.dtype, name="stem")
        x = nn.relu(stem(images.astype(self.dtype)))
        stages = (
            (32, 32), (48, 48, 64), (96, 128, 128), (144, 192, 256),
            (384, 384, 384, 384),
        )  # fmt: skip
        maps, number = [], 0
        for stage, widths in enumerate(stages):
            for index, width in enumerate(widths):
                stride = 2 if stage and not index else 1
                x = self._unit(width // 4, width, stride, f"unit{number}")(x)
                number += 1
            maps.append(x)
        levels = zip((96, 64, 48), (2, 2, 1), maps[-2:0:-1], strict=True)
        for level, (width, count, fine) in enumerate(levels):
            convs = (
                nn.Conv(width, (1, 1), dtype=self.dtype, name=f"{name}{level}")
                for name in ("coarse", "fine")
            )
            coarse, fine = (
                nn.relu(c(y)) for c, y in zip(convs, (x, fine), strict=True)
            )
            size = fine.shape[1:3]
            x = fine + resize_bilinear(coarse, size, align_corners=False)
            for index in range(count):
                x = self._unit(width // 2, width, 1, f"up{level}_{index}")(x)
        return _heads([x], self.anchors, self.dtype)

    def _unit(self, inner: int, width: int, stride: int, name: str) -> BlazeUnit:
        return BlazeUnit((inner, width), stride, dtype=self.dtype, name=name)


def _heads(
    maps: list[Array], anchors: tuple[tuple[int, int], ...], dtype: DTypeLike
) -> BlazeOutput:
    """Outputs of all maps side by side; called within a compact module."""
    offsets, logits = [], []
    for number, (x, (_, count)) in enumerate(zip(maps, anchors, strict=True)):
        for outputs, size, name in (
            (offsets, _OFFSETS, "offsets"),
            (logits, 1, "logits"),
        ):
            head = nn.Conv(count * size, (1, 1), dtype=dtype, name=f"{name}{number}")
            outputs.append(head(x).astype(jnp.float32).reshape(x.shape[0], -1, size))
    return BlazeOutput(jnp.concatenate(offsets, 1), jnp.concatenate(logits, 1)[..., 0])
