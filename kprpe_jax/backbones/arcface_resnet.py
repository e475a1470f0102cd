"""The ArcFace network for gray 128 x 128 faces, compared patch by patch."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

from kprpe_jax.backbones.network import Network
from kprpe_jax.layers.batch_norm import BatchNorm
from kprpe_jax.layers.convolution import PRelu, conv

WIDTHS = (64, 128, 256, 512)
_GRAY = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R 601 luma, as in OpenCV


class GrayUnit(nn.Module):
    """Residual unit: norm, conv, norm, PReLU, strided conv, norm; PReLU of the sum.

    Source: the official code. Both PReLUs of a unit have the same slope.
    """

    width: int
    stride: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """[B, h, w, C] -> [B, h / stride, w / stride, width]."""

        def norm(name: str, x: Array) -> Array:
            return BatchNorm(name=name)(x, train=train).astype(self.dtype)

        act = PRelu(shared=True, name="act")
        branch = conv(x.shape[-1], 3, 1, self.dtype, "conv1")(norm("norm1", x))
        branch = act(norm("norm2", branch))
        branch = conv(self.width, 3, self.stride, self.dtype, "conv2")(branch)
        branch = norm("norm3", branch)
        if self.stride > 1 or x.shape[-1] != self.width:
            x = conv(self.width, 1, self.stride, self.dtype, "shortcut_conv")(x)
            x = norm("shortcut_norm", x)
        return act(branch + x)


class ArcFaceResNet(Network):
    """Images to embeddings; model C of Face-ViT, 18 layers.

    Source: DeepFace-EMD, Sec. 3.2, and the official code. Only the luma of an image is
    read.

    Attributes:
      stage_sizes: units of the four stages; the stem and the last three halve the map.
      image_size: (height, width) in pixels, multiples of 16.
      output_dim: D, size of the embedding.
      dropout_rate: on the patch map.
      dtype: compute type. Parameters, norm statistics and output are float32.
    """

    stage_sizes: tuple[int, int, int, int] = (2, 2, 2, 2)
    image_size: tuple[int, int] = (128, 128)
    output_dim: int = 512
    dropout_rate: float = 0.5
    dtype: DTypeLike = jnp.float32

    patch_map = "patches"
    style_maps = ("stage2", "stage3")

    def setup(self) -> None:
        """Declare all parts."""
        self.stem_conv = conv(WIDTHS[0], 3, 1, self.dtype)
        self.stem_norm = BatchNorm()
        self.stem_act = PRelu(shared=True)
        self.stages = [
            [
                GrayUnit(width, 1 if index or not stage else 2, self.dtype)
                for index in range(size)
            ]
            for stage, (width, size) in enumerate(
                zip(WIDTHS, self.stage_sizes, strict=True)
            )
        ]
        self.norm = BatchNorm()
        self.dropout = nn.Dropout(self.dropout_rate)
        self.head = nn.Dense(self.output_dim, dtype=self.dtype)
        self.head_norm = BatchNorm()

    def feature_maps(
        self, images: Array, keypoints: Array | None = None, *, train: bool = False
    ) -> dict[str, Array]:
        """Feature maps.

        Args: as `__call__`.
        Returns: `stage2` [B, H / 4, W / 4, 128]; `stage3` [B, H / 8, W / 8, 256];
          `patches` [B, H / 16, W / 16, 512],
          normalized and signed: the one for matching patch by patch.
        Raises: ValueError: image size or channels do not fit the model.
        """
        self.check_images(images, channels=(3, 1), multiple=16)
        if images.shape[-1] == 3:
            images = (images * _GRAY).sum(-1, keepdims=True)
        x = self.stem_conv(images.astype(self.dtype))
        x = self.stem_act(self.stem_norm(x, train=train).astype(self.dtype))
        x = nn.max_pool(x, (2, 2), strides=(2, 2))
        maps = []
        for units in self.stages:
            for unit in units:
                x = unit(x, train)
            maps.append(x)
        patches = self.norm(x, train=train).astype(self.dtype)
        return {"stage2": maps[1], "stage3": maps[2], "patches": patches}

    def embed_map(self, patches: Array, *, train: bool = False) -> Array:
        """Last feature map to embeddings: float32 [B, output_dim]."""
        x = self.dropout(patches, deterministic=not train)
        # Channels first, as the official weights count their inputs.
        x = self.head(x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1))
        return self.head_norm(x, train=train)
