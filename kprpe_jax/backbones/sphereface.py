"""The 20-layer SphereFace network that CosFace trains: no norms, 112 x 96 faces."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from kprpe_jax.backbones.network import Network
from kprpe_jax.layers.convolution import PRelu, conv

WIDTHS = (64, 128, 256, 512)


class SphereUnit(nn.Module):
    """Residual unit: conv, PReLU, conv, PReLU; plus the input."""

    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, h, w, C] -> [B, h, w, C]."""
        branch = x
        for part in ("1", "2"):
            branch = conv(x.shape[-1], 3, 1, self.dtype, f"conv{part}")(branch)
            branch = PRelu(name=f"act{part}")(branch)
        return x + branch


class SphereFace(Network):
    """Images to embeddings.

    Source: SphereFace (Liu et al., 2017), Table 2, as CosFace and DeepFace-EMD use it.

    Attributes:
      stage_sizes: units of the four stages; each stage starts by halving the map.
      image_size: (height, width) in pixels, multiples of 16.
      output_dim: D, size of the embedding.
      dtype: compute type. Parameters and output are float32.
    """

    stage_sizes: tuple[int, int, int, int] = (1, 2, 4, 1)
    image_size: tuple[int, int] = (112, 96)
    output_dim: int = 512
    dtype: DTypeLike = jnp.float32

    patch_map = "patches"
    style_maps = ("stage2", "stage3")

    def setup(self) -> None:
        """Declare all parts."""
        self.reductions = [conv(width, 3, 2, self.dtype, bias=True) for width in WIDTHS]
        self.acts = [PRelu() for _ in WIDTHS]
        self.stages = [
            [SphereUnit(self.dtype) for _ in range(size)] for size in self.stage_sizes
        ]
        self.head = nn.Dense(self.output_dim, dtype=self.dtype)

    def feature_maps(
        self, images: Array, keypoints: Array | None = None, *, train: bool = False
    ) -> dict[str, Array]:
        """Feature maps.

        Args: as `__call__`.
        Returns: `stage1` to `stage4`: [B, H / 2^s, W / 2^s, WIDTHS[s - 1]]; `patches`:
          the last, for matching patch by patch.
        Raises: ValueError: image size or channels do not fit the model.
        """
        self.check_images(images, multiple=16)
        x, maps = images.astype(self.dtype), {}
        parts = zip(self.reductions, self.acts, self.stages, strict=True)
        for index, (reduction, act, units) in enumerate(parts, 1):
            x = act(reduction(x))
            for unit in units:
                x = unit(x)
            maps[f"stage{index}"] = x
        return {**maps, "patches": x}

    def embed_map(self, patches: Array, *, train: bool = False) -> Array:
        """Last feature map to embeddings: float32 [B, output_dim]."""
        # Channels first, as the official weights count their inputs.
        x = patches.transpose(0, 3, 1, 2).reshape(patches.shape[0], -1)
        return self.head(x).astype(jnp.float32)
