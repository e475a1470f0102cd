"""GaitBase: a residual network on each silhouette, one embedding per body part."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from kprpe_jax.layers.gait_stem import GaitStem
from kprpe_jax.layers.parts import (
    GaitOutput,
    PartHeads,
    check_silhouettes,
    horizontal_pyramid,
    set_pooling,
)

PRESETS: dict[str, dict[str, Any]] = {
    # For a CPU.
    "tiny": dict(image_size=(32, 22), channels=(8, 16, 24, 32), bins=(8,), part_dim=32),
}


class GaitBase(nn.Module):
    """Sequences of silhouettes to one embedding per body part.

    Every frame goes alone through the residual network; the maximum over time joins
    them, so neither the order of frames nor padding matters.

    Source: Fan et al., OpenGait: revisiting gait recognition toward better
    practicality, CVPR 2023; its `Baseline` with a `ResNet9` of basic blocks.

    Attributes:
      num_classes: people of the training set.
      image_size: (height, width) of silhouettes.
      channels, depths, strides: of the stages; a stride is of a stage's first block.
      max_pool: whether a 3 x 3 pooling with stride 2 stands before the stages.
      bins: strips of each level of the pyramid; P is their sum.
      part_dim: D.
      dtype: compute type. Parameters, statistics, logits and outputs are float32.
    """

    num_classes: int
    image_size: tuple[int, int] = (64, 44)
    channels: tuple[int, ...] = (64, 128, 256, 512)
    depths: tuple[int, ...] = (1, 1, 1, 1)
    strides: tuple[int, ...] = (1, 2, 2, 1)
    max_pool: bool = False
    bins: tuple[int, ...] = (16,)
    part_dim: int = 256
    dtype: DTypeLike = jnp.float32

    uses_keypoints = False
    spans_time = False

    def setup(self) -> None:
        """Check the options, then declare all parts."""
        counts = [len(x) for x in (self.channels, self.depths, self.strides)]
        if len(set(counts)) > 1:
            raise ValueError(
                "GaitBase: channels, depths and strides must be of the same stages; "
                f"got {counts[0]}, {counts[1]} and {counts[2]} numbers."
            )
        self.stem = GaitStem(
            self.channels,
            self.depths,
            self.strides,
            max_pool=self.max_pool,
            dtype=self.dtype,
        )
        self.heads = PartHeads(self.part_dim, self.num_classes)

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
          train: batch statistics are on.
        Returns: `GaitOutput`; embeddings of a sequence without valid frame are 0.
        Raises: ValueError: no frame, or sizes that do not fit.
        """
        del keypoints, joint_mask
        mask = check_silhouettes("GaitBase", silhouettes, mask, self.image_size)
        x = self.stem(silhouettes, mask, train=train)
        maps = x.reshape(*mask.shape, *x.shape[1:]).astype(jnp.float32)
        parts = horizontal_pyramid(set_pooling(maps, mask), self.bins)
        return self.heads(parts, train=train)
