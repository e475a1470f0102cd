"""Inception-ResNet v1, the network of FaceNet for 160 x 160 faces."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from kprpe_jax.backbones.network import Network
from kprpe_jax.layers.batch_norm import BatchNorm

EPSILON = 1e-3  # of all batch norms

# (width, kernel height, kernel width) of the convolutions, branch by branch.
Branches = tuple[tuple[tuple[int, int, int], ...], ...]
BLOCK35: Branches = (
    ((32, 1, 1),),
    ((32, 1, 1), (32, 3, 3)),
    ((32, 1, 1), (32, 3, 3), (32, 3, 3)),
)
BLOCK17: Branches = (((128, 1, 1),), ((128, 1, 1), (128, 1, 7), (128, 7, 1)))
BLOCK8: Branches = (((192, 1, 1),), ((192, 1, 1), (192, 1, 3), (192, 3, 1)))
REDUCE_A: Branches = (((384, 3, 3),), ((192, 1, 1), (192, 3, 3), (256, 3, 3)))
REDUCE_B: Branches = (
    ((256, 1, 1), (384, 3, 3)),
    ((256, 1, 1), (256, 3, 3)),
    ((256, 1, 1), (256, 3, 3), (256, 3, 3)),
)
STEM = (  # (width, kernel side, stride, padding, whether a max pool follows)
    (32, 3, 2, "VALID", False), (32, 3, 1, "VALID", False),
    (64, 3, 1, "SAME", True), (80, 1, 1, "VALID", False),
    (192, 3, 1, "VALID", False), (256, 3, 2, "VALID", False),
)  # fmt: skip


class InceptionConv(nn.Module):
    """Convolution without bias, batch norm, ReLU."""

    width: int
    size: tuple[int, int]
    stride: int
    padding: str
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """[B, h, w, C] -> [B, h', w', width]."""
        x = nn.Conv(
            self.width,
            self.size,
            strides=self.stride,
            padding=self.padding,
            use_bias=False,
            dtype=self.dtype,
            name="conv",
        )(x)
        x = BatchNorm(epsilon=EPSILON, name="norm")(x, train=train)
        return nn.relu(x).astype(self.dtype)


class Reduction(nn.Module):
    """Branches that end in a stride of 2, beside a max pool."""

    branches: Branches
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """[B, h, w, C] -> [B, (h - 1) // 2, (w - 1) // 2, C']."""
        outputs = _branches(x, self.branches, 2, self.dtype, train)
        return jnp.concatenate([*outputs, _max_pool(x)], -1)


class Residual(nn.Module):
    """Branches and a 1 x 1 convolution, scaled and added to the input.

    Attributes:
      branches: their convolutions.
      scale: of what is added.
      activate: end with ReLU.
      dtype: compute type.
    """

    branches: Branches
    scale: float
    activate: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """[B, h, w, C] -> [B, h, w, C]."""
        outputs = _branches(x, self.branches, 1, self.dtype, train)
        merge = nn.Conv(x.shape[-1], (1, 1), dtype=self.dtype, name="merge")
        x = x + self.scale * merge(jnp.concatenate(outputs, -1))
        return nn.relu(x) if self.activate else x


class InceptionResNet(Network):
    """Images to embeddings.

    Source: Szegedy et al., Inception-v4, Fig. 10-14, as FaceNet and DeepFace-EMD use
    it. FaceNet's embedding is the unit vector of ours.

    Attributes:
      image_size: (height, width) in pixels, at least 75.
      output_dim: D, size of the embedding.
      repeats: blocks of the three kinds, without the last one.
      dropout_rate: before the last linear layer.
      dtype: compute type. Parameters, norm statistics and output are float32.
    """

    image_size: tuple[int, int] = (160, 160)
    output_dim: int = 512
    repeats: tuple[int, int, int] = (5, 10, 5)
    dropout_rate: float = 0.6
    dtype: DTypeLike = jnp.float32

    patch_map = "patches"
    style_maps = ("block35", "block17")

    def setup(self) -> None:
        """Declare all parts."""
        self.stem = [
            InceptionConv(width, (side, side), stride, padding, self.dtype)
            for width, side, stride, padding, _ in STEM
        ]
        self.block35, self.block17, self.block8 = (
            [Residual(branches, scale, True, self.dtype) for _ in range(count)]
            for (branches, scale), count in zip(
                ((BLOCK35, 0.17), (BLOCK17, 0.10), (BLOCK8, 0.20)),
                self.repeats,
                strict=True,
            )
        )
        self.reduce_a = Reduction(REDUCE_A, self.dtype)
        self.reduce_b = Reduction(REDUCE_B, self.dtype)
        self.last_block = Residual(BLOCK8, 1.0, False, self.dtype)
        self.dropout = nn.Dropout(self.dropout_rate)
        self.head = nn.Dense(self.output_dim, use_bias=False, dtype=self.dtype)
        self.head_norm = BatchNorm(epsilon=EPSILON)

    @nn.nowrap
    def patches_along(self, side: int) -> int:
        """Cells of the last map along an image side of `side` pixels."""
        for _, kernel, stride, padding, pooled in STEM:
            same = padding == "SAME"
            side = -(-side // stride) if same else (side - kernel) // stride + 1
            side = (side - 3) // 2 + 1 if pooled else side
        for _ in range(2):  # two reductions
            side = (side - 3) // 2 + 1
        return side

    def feature_maps(
        self, images: Array, keypoints: Array | None = None, *, train: bool = False
    ) -> dict[str, Array]:
        """Feature maps; of 160 x 160 pixels they are 17, 8 and 3 wide.

        Args: as `__call__`.
        Returns: `block35` [B, 17, 17, 256], `block17` [B, 8, 8, 896]; `patches`
          [B, 3, 3, 1792], signed: the one for matching patch by patch.
        Raises: ValueError: image size or channels do not fit the model.
        """
        self.check_images(images, least=75)
        x = images.astype(self.dtype)
        for conv, (*_, pooled) in zip(self.stem, STEM, strict=True):
            x = conv(x, train)
            x = _max_pool(x) if pooled else x
        maps = {}
        for block in self.block35:
            x = block(x, train)
        maps["block35"] = x
        x = self.reduce_a(x, train)
        for block in self.block17:
            x = block(x, train)
        maps["block17"] = x
        x = self.reduce_b(x, train)
        for block in (*self.block8, self.last_block):
            x = block(x, train)
        return {**maps, "patches": x}

    def embed_map(self, patches: Array, *, train: bool = False) -> Array:
        """Last feature map to embeddings: float32 [B, output_dim]."""
        x = patches.astype(jnp.float32).mean((1, 2))
        x = self.head(self.dropout(x, deterministic=not train))
        return self.head_norm(x, train=train)


def _branches(
    x: Array, branches: Branches, stride: int, dtype: DTypeLike, train: bool
) -> list[Array]:
    """Outputs of all branches; only the last convolution of each has the stride."""
    outputs = []
    for number, branch in enumerate(branches):
        y = x
        for index, (width, *size) in enumerate(branch):
            strided = stride > 1 and index == len(branch) - 1
            how = (stride, "VALID") if strided else (1, "SAME")
            name = f"branch{number}_{index}"
            y = InceptionConv(width, tuple(size), *how, dtype, name=name)(y, train)
        outputs.append(y)
    return outputs


def _max_pool(x: Array) -> Array:
    return nn.max_pool(x, (3, 3), strides=(2, 2))
