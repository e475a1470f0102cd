"""The face ResNet of dlib: 29 convolutions, 150 x 150 chips, 128 numbers."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

from kprpe_jax.backbones.network import Network
from kprpe_jax.layers.convolution import convolve

# Red, green and blue that the network subtracts, in levels of 255.
MEANS = (122.782, 117.001, 104.298)
SCALE = 256.0  # levels are divided by it before
STEM = (7, 2)  # kernel and stride of the first convolution


class AffineConv(nn.Module):
    """Convolution with a bias, then a learned scale and bias of each channel.

    The latter two are a batch norm whose statistics were folded in when training ended.

    Attributes:
      width: output channels.
      size: side of the kernel.
      stride: in both directions.
      padding: zeros on each side.
      dtype: compute type.
    """

    width: int
    size: int
    stride: int
    padding: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, h, w, C] -> [B, (h + 2 padding - size) // stride + 1, alike, width]."""
        x = nn.Conv(
            self.width,
            (self.size, self.size),
            strides=self.stride,
            padding=self.padding,
            kernel_init=nn.initializers.variance_scaling(2.0, "fan_out", "normal"),
            dtype=self.dtype,
            name="conv",
            conv_general_dilated=convolve,
        )(x)
        scale = self.param("scale", nn.initializers.ones, (self.width,))
        bias = self.param("bias", nn.initializers.zeros, (self.width,))
        return x * scale.astype(self.dtype) + bias.astype(self.dtype)


class ShortcutBlock(nn.Module):
    """Two 3 x 3 convolutions plus the input; ReLU after the first and the sum.

    Attributes:
      width: output channels.
      down: halve the map: a first convolution of stride 2 without padding, and the
        input's 2 x 2 averages. Where the two differ in size, the smaller is padded with
        zeros at its end, in space and in channels.
      dtype: compute type.
    """

    width: int
    down: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, h, w, C] -> [B, h, w, width], or half of h and w, rounded down."""
        how = (2, 0) if self.down else (1, 1)
        y = AffineConv(self.width, 3, *how, self.dtype, name="conv1")(x)
        y = AffineConv(self.width, 3, 1, 1, self.dtype, name="conv2")(nn.relu(y))
        if self.down:
            x = nn.avg_pool(x, (2, 2), strides=(2, 2))
        return nn.relu(_add_padded(x, y))


class DlibResNet(Network):
    """Face chips to embeddings.

    Source: dlib, dnn_face_recognition_ex.cpp (Davis King), a ResNet-34 with fewer
    layers and half of the filters. There, two faces are of one person if the Euclidean
    distance of their embeddings, which have a length of about 1.4, is less than 0.6.

    Attributes:
      image_size: (height, width) in pixels, at least 87.
      output_dim: D, size of the embedding.
      widths: channels of the stages.
      stage_sizes: blocks of the stages; all stages but the first halve the map.
      dtype: compute type. Parameters and output are float32.
    """

    image_size: tuple[int, int] = (150, 150)
    output_dim: int = 128
    widths: tuple[int, ...] = (32, 64, 128, 256, 256)
    stage_sizes: tuple[int, ...] = (3, 4, 3, 3, 1)
    dtype: DTypeLike = jnp.float32

    patch_map = "stage4"
    style_maps = ("stage2", "stage3")

    def setup(self) -> None:
        """Declare all parts."""
        self.stem = AffineConv(self.widths[0], *STEM, 0, self.dtype)
        self.stages = [
            [
                ShortcutBlock(width, bool(stage) and not index, self.dtype)
                for index in range(size)
            ]
            for stage, (width, size) in enumerate(
                zip(self.widths, self.stage_sizes, strict=True)
            )
        ]
        self.head = nn.Dense(self.output_dim, use_bias=False, dtype=self.dtype)

    @nn.nowrap
    def patches_along(self, side: int) -> int:
        """Cells of the fourth stage's map along an image side of `side` pixels."""
        side = (side - STEM[0]) // STEM[1] + 1
        side = (side - 3) // 2 + 1
        for _ in range(3):
            side //= 2
        return side

    def feature_maps(
        self, images: Array, keypoints: Array | None = None, *, train: bool = False
    ) -> dict[str, Array]:
        """Feature maps; of 150 x 150 pixels they are 35, 17, 8 and 4 wide.

        Args: as `__call__`; images in levels divided by 256.
        Returns: `stage1` .. `stage4`, [B, h, w, widths[i]]. The last, with 16 cells, is
          the one for matching patch by patch; that of the fifth stage has 4.
        Raises: ValueError: image size or channels do not fit the model.
        """
        self.check_images(images, least=87)
        x = images.astype(self.dtype) - np.float32(MEANS) / SCALE
        x = nn.relu(self.stem(x.astype(self.dtype)))
        x = nn.max_pool(x, (3, 3), strides=(2, 2))
        maps = {}
        for number, blocks in enumerate(self.stages[:-1], start=1):
            for block in blocks:
                x = block(x)
            maps[f"stage{number}"] = x
        return maps

    def embed_map(self, patches: Array, *, train: bool = False) -> Array:
        """Map of the fourth stage to embeddings: float32 [B, output_dim]."""
        for block in self.stages[-1]:
            patches = block(patches)
        return self.head(patches.mean((1, 2))).astype(jnp.float32)


def _add_padded(x: Array, y: Array) -> Array:
    """Sum of two maps, each padded with zeros at its end to the larger size."""
    shape = np.maximum(x.shape, y.shape)
    return sum(
        jnp.pad(z, [(0, int(n)) for n in shape - np.array(z.shape)]) for z in (x, y)
    )
