"""What a network says of images: the one type between backbones and everything else."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


class Features(NamedTuple):
    """Features of images, or of fused sets of images.

    Arrays of device or host; every array has the same leading axes. A field that was
    not computed is None.

    Attributes:
      embeddings: float32 [..., D], not normalized.
      patches: [..., N, C], the last feature map or the final tokens, row-major.
      style: float32 [..., C', 2], mean and standard deviation of every channel of the
        network's style maps (Cluster and Aggregate, Eq. 4).
      keypoints: float32 [..., K, 2], (x, y) in fractions of the network's image.
    """

    embeddings: Array
    patches: Array | None = None
    style: Array | None = None
    keypoints: Array | None = None


def take(features: Features, rows: np.ndarray | slice) -> Features:
    """Select rows of the first axis of every array."""
    return jax.tree.map(lambda x: x[rows], features)


def concatenate(parts: Sequence[Features]) -> Features:
    """Join host features along the first axis; all must have the same fields."""
    return jax.tree.map(lambda *x: np.concatenate(x), *parts)


def style_statistics(maps: Sequence[Array]) -> Array:
    """Spatial mean and standard deviation of every channel, Gamma of Eq. 4.

    Source: Cluster and Aggregate, Eq. 4; the deviation is the unbiased one (divisor
    h w - 1), as in the official code, the paper does not say.

    Args:
      maps: feature maps [..., h, w, C] of the same images, such as `stage2` and
        `stage3` of an iResNet; h, w and C may differ from map to map.
    Returns: float32 [..., sum of C, 2], mean first; the deviation is 0 on a map of one
      pixel.
    Raises: ValueError: no maps, or of different images.
    """
    leading = {features.shape[:-3] for features in maps}
    if len(leading) != 1:
        raise ValueError(
            "style_statistics: there must be maps [..., h, w, C] of the same images; "
            f"got {[features.shape for features in maps]}; tap one network, once."
        )

    def statistics(features: Array) -> Array:
        features = features.astype(jnp.float32)
        pixels = features.shape[-3] * features.shape[-2]
        mean = features.mean((-3, -2))
        squares = jnp.square(features - mean[..., None, None, :]).sum((-3, -2))
        variance = squares / max(pixels - 1, 1)
        # A flat map has deviation 0, and so no gradient.
        std = jnp.where(variance > 0, jnp.sqrt(jnp.where(variance > 0, variance, 1)), 0)
        return jnp.stack([mean, std], axis=-1)

    return jnp.concatenate([statistics(features) for features in maps], axis=-2)
