"""Image style: what an image looks like, whoever it shows."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from kprpe_jax.layers.batch_norm import BatchNorm

POOLS = ("mean", "sum")
ACTIVATIONS = ("relu", "prelu")


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


class StyleInputMaker(nn.Module):
    """Style vector gamma of an image.

    Source: Cluster and Aggregate, Eq. 4. W_s starts at 0, as in the official code.

    Attributes:
      style_dim: length of the vector.
      pool: over the two statistics: `mean` as in Eq. 4, `sum` as in the official code.
      activation: `relu` as in Eq. 4; `prelu`, one learned slope, as in the official
        code.
    """

    style_dim: int = 64
    pool: str = "mean"
    activation: str = "relu"

    @nn.compact
    def __call__(self, statistics: Array, mask: Array, *, train: bool) -> Array:
        """Embed.

        Args:
          statistics: [..., C, 2] of `style_statistics`.
          mask: bool [...]; the others do not enter the batch statistics.
          train: use and collect batch statistics.
        Returns: float32 [..., style_dim].
        Raises: ValueError: unknown option.
        """
        for name, choices in (("pool", POOLS), ("activation", ACTIVATIONS)):
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"StyleInputMaker: unknown {name} {getattr(self, name)!r}; use one "
                    f"of {choices}."
                )
        weight = self.param("weight", nn.initializers.zeros, statistics.shape[-2:])
        weighted = statistics.astype(jnp.float32) * weight
        x = weighted.mean(-1) if self.pool == "mean" else weighted.sum(-1)
        slope = 0.0
        if self.activation == "prelu":
            slope = self.param("slope", nn.initializers.constant(0.25), ())
        x = jnp.where(x >= 0, x, slope * x)
        x = nn.Dense(self.style_dim, name="linear")(x)
        return BatchNorm(name="norm")(x, mask, train=train)
