"""MobileFaceNet: a face network of one million parameters."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from kprpe_jax.backbones.network import Network
from kprpe_jax.layers.batch_norm import BatchNorm
from kprpe_jax.layers.convolution import PRelu, conv
from kprpe_jax.layers.depthwise import DepthwiseConv

# (expansion, width, units, stride of the first) of the bottlenecks, Table 1.
STAGES = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))
# The same of arcface_torch's `get_mbf`, blocks (1, 4, 6, 2) of scale 2.
INSIGHTFACE_STAGES = (
    (1, 128, 1, 2), (1, 128, 4, 1), (2, 256, 1, 2), (1, 256, 6, 1), (2, 256, 1, 2),
    (1, 256, 2, 1),
)  # fmt: skip


class ConvNorm(nn.Module):
    """Convolution without bias, batch norm, and where said PReLU.

    Attributes:
      width: output channels.
      size: (height, width) of the kernel; where it is not depthwise a square.
      stride: in both directions.
      depthwise: every channel on its own.
      padding: pixels on each side of a depthwise one; another keeps the map's size.
      groups: of channels, where it is not depthwise.
      activate: end with PReLU.
      dtype: compute type.
    """

    width: int
    size: tuple[int, int]
    stride: int = 1
    depthwise: bool = False
    padding: int = 0
    groups: int = 1
    activate: bool = True
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """[B, h, w, C] -> [B, h', w', width]."""
        if self.depthwise:
            fields = self.size, self.stride, self.padding, self.dtype
            x = DepthwiseConv(*fields, name="conv")(x)
        else:
            fields = self.width, self.size[0], self.stride, self.dtype, "conv"
            x = conv(*fields, groups=self.groups)(x)
        x = BatchNorm(name="norm")(x, train=train).astype(self.dtype)
        return PRelu(name="act")(x) if self.activate else x


class Bottleneck(nn.Module):
    """Inverted residual: expand, depthwise convolution, project; plus the input.

    The input is added where stride and width leave its shape as it is.
    """

    width: int
    expansion: int
    stride: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """[B, h, w, C] -> [B, h / stride, w / stride, width]."""
        inner = x.shape[-1] * self.expansion
        options = dict(dtype=self.dtype)
        branch = ConvNorm(inner, (1, 1), name="expand", **options)(x, train)
        branch = ConvNorm(
            inner,
            (3, 3),
            self.stride,
            depthwise=True,
            padding=1,
            name="depthwise",
            **options,
        )(branch, train)
        branch = ConvNorm(
            self.width, (1, 1), activate=False, name="project", **options
        )(branch, train)
        same = self.stride == 1 and self.width == x.shape[-1]
        return x + branch if same else branch


class MobileFaceNet(Network):
    """Images to embeddings.

    Source: MobileFaceNets (Chen et al., 2018), Table 1: a global depthwise convolution
    in place of global average pooling.

    Attributes:
      image_size: (height, width) in pixels, multiples of 16; 112 x 96 are columns 8 to
        103 of an aligned 112 x 112 face.
      output_dim: D, size of the embedding.
      dtype: compute type. Parameters, norm statistics and output are float32.
    """

    image_size: tuple[int, int] = (112, 112)
    output_dim: int = 128
    dtype: DTypeLike = jnp.float32

    stages = STAGES
    stem_width = 64  # channels of the first two convolutions
    stem_groups = 0  # of channels of the second one; 0 = it is depthwise
    last_width = 512  # channels of the last map
    patch_map = "conv3"
    style_maps = ("stage1", "stage2", "stage3")

    def setup(self) -> None:
        """Declare all parts."""
        options = dict(dtype=self.dtype)
        width = self.stem_width
        self.conv1 = ConvNorm(width, (3, 3), 2, **options)
        if self.stem_groups:
            self.conv2 = ConvNorm(width, (3, 3), groups=self.stem_groups, **options)
        else:
            self.conv2 = ConvNorm(width, (3, 3), depthwise=True, padding=1, **options)
        self.blocks = [
            Bottleneck(width, expansion, 1 if index else stride, self.dtype)
            for expansion, width, count, stride in self.stages
            for index in range(count)
        ]
        self.conv3 = ConvNorm(self.last_width, (1, 1), **options)
        size = tuple(side // 16 for side in self.image_size)
        fields = dict(activate=False, **options)
        self.pool = ConvNorm(self.last_width, size, depthwise=True, **fields)
        self.head = ConvNorm(self.output_dim, (1, 1), **fields)

    def feature_maps(
        self, images: Array, keypoints: Array | None = None, *, train: bool = False
    ) -> dict[str, Array]:
        """Feature maps where their size changes, and the last one.

        Args: as `__call__`.
        Returns: `stage1` [B, H / 4, W / 4, 64], `stage2` [B, H / 8, W / 8, 128],
          `stage3` [B, H / 16, W / 16, 128], `conv3` [B, H / 16, W / 16, 512]: the one
          for matching patch by patch; a subclass has the widths of its fields.
        Raises: ValueError: image size or channels do not fit the model.
        """
        self.check_images(images, multiple=16)
        x = images.astype(self.dtype)
        x = self.conv2(self.conv1(x, train), train)
        maps: dict[str, Array] = {}
        for block in self.blocks:
            number = len(maps) + (block.stride > 1)
            x = maps[f"stage{number}"] = block(x, train)
        return {**maps, "conv3": self.conv3(x, train)}

    def embed_map(self, conv3: Array, *, train: bool = False) -> Array:
        """Last feature map to embeddings: float32 [B, output_dim]."""
        x = self.head(self.pool(conv3, train), train)
        return x.reshape(x.shape[0], -1).astype(jnp.float32)


class InsightFaceMobileFaceNet(MobileFaceNet):
    """The wider MobileFaceNet of arcface_torch, whose stem is grouped.

    Source: arcface_torch, `get_mbf`. Its residual units do not expand, and the second
    convolution sees two channels at a time.

    Attributes:
      image_size, output_dim, dtype: as `MobileFaceNet`.
      stages: (expansion, width, units, stride of the first) of the bottlenecks; three
        strides are 2, the others 1.
      stem_width: channels of the first two convolutions.
      stem_groups: of channels of the second convolution.
      last_width: channels of the last map.
    """

    output_dim: int = 512
    stages: tuple[tuple[int, int, int, int], ...] = INSIGHTFACE_STAGES
    stem_width: int = 128
    stem_groups: int = 64
    last_width: int = 512
