"""GaitSet: a walk as a set of silhouettes, to one embedding per body part."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from kprpe_jax.layers.parts import (
    GaitOutput,
    PartHeads,
    check_silhouettes,
    horizontal_pyramid,
    set_pooling,
)

PRESETS: dict[str, dict[str, Any]] = {
    # For a CPU.
    "tiny": dict(
        image_size=(32, 22), channels=(8, 16, 32), bins=(8, 4, 2, 1), part_dim=32
    ),
}


class GaitSet(nn.Module):
    """Sequences of silhouettes to one embedding per body part.

    Convolutions see each frame alone. A second branch begins with the maximum over time
    of their first block, and adds that of the second and of the third. Neither the
    order of frames nor padding matters, and there are no batch statistics.

    Source: Chao et al., GaitSet: regarding gait as a set for cross-view gait
    recognition, AAAI 2019, as OpenGait has it. Kernels start by Flax's rule, not by
    Xavier's, and both branches differ at the start.

    Attributes:
      image_size: (height, width) of silhouettes; the pyramid divides a quarter of the
        height.
      channels: of the three blocks; the first two halve the map.
      bins: strips of each level of the pyramid; P is twice their sum, the strips of the
        frames before those of the second branch.
      part_dim: D.
      dtype: compute type of the convolutions. Parameters and outputs are float32.
    """

    image_size: tuple[int, int] = (64, 44)
    channels: tuple[int, int, int] = (32, 64, 128)
    bins: tuple[int, ...] = (16, 8, 4, 2, 1)
    part_dim: int = 256
    dtype: DTypeLike = jnp.float32

    uses_keypoints = False
    spans_time = False

    def setup(self) -> None:
        """Declare all parts."""
        first, second, third = self.channels
        self.set_block1 = TwoConvolutions(first, 5, True, self.dtype)
        self.set_block2 = TwoConvolutions(second, 3, True, self.dtype)
        self.set_block3 = TwoConvolutions(third, 3, False, self.dtype)
        self.gl_block2 = TwoConvolutions(second, 3, True, self.dtype)
        self.gl_block3 = TwoConvolutions(third, 3, False, self.dtype)
        self.heads = PartHeads(self.part_dim)

    def __call__(
        self,
        silhouettes: Array,
        keypoints: Array | None = None,
        *,
        mask: Array | None = None,
        joint_mask: Array | None = None,
        train: bool = False,
    ) -> GaitOutput:
        """Embed.

        Args:
          silhouettes: float32 [B, T, H, W] in [0, 1], as officially.
          keypoints, joint_mask: not read.
          mask: bool [B, T], True = valid frame; None = all. What stands in the others
            changes nothing.
          train: changes nothing.
        Returns: `GaitOutput` without logits; embeddings of a sequence without valid
          frame are 0.
        Raises: ValueError: no frame, or sizes that do not fit.
        """
        del keypoints, joint_mask
        mask = check_silhouettes("GaitSet", silhouettes, mask, self.image_size)

        def pooled(x: Array) -> Array:
            maps = x.reshape(*mask.shape, *x.shape[1:]).astype(jnp.float32)
            return set_pooling(maps, mask)

        x = jnp.where(mask[:, :, None, None], silhouettes, 0)
        x = self.set_block1(x.reshape(-1, *x.shape[2:], 1))
        whole = self.gl_block2(pooled(x))
        x = self.set_block2(x)
        whole = self.gl_block3(whole + pooled(x))
        frames = pooled(self.set_block3(x))
        branches = [
            horizontal_pyramid(maps, self.bins) for maps in (frames, whole + frames)
        ]
        return self.heads(jnp.concatenate(branches, axis=1), train=train)


class TwoConvolutions(nn.Module):
    """Two convolutions without bias or norm, a LeakyReLU after each; then max pooling.

    Attributes:
      width: channels.
      size: of the first kernel; the second is 3 x 3.
      halves: whether the map is pooled by 2 x 2.
      dtype: compute type.
    """

    width: int
    size: int
    halves: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[N, h, w, C] -> [N, h, w, width], or half of h and w, rounded down."""
        for number, size in enumerate((self.size, 3), 1):
            x = nn.Conv(
                self.width, (size, size), padding=size // 2, use_bias=False,
                dtype=self.dtype, name=f"conv{number}",
            )(x)  # fmt: skip
            x = nn.leaky_relu(x, 0.01)
        return nn.max_pool(x, (2, 2), (2, 2)) if self.halves else x
