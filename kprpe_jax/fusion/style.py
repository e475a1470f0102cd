"""Image style: appearance of an image, independent of identity."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from kprpe_jax.layers.batch_norm import BatchNorm
from kprpe_jax.layers.convolution import leaky_relu

POOLS = ("mean", "sum")
ACTIVATIONS = ("relu", "prelu")


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
        x = leaky_relu(x, slope)
        x = nn.Dense(self.style_dim, name="linear")(x)
        return BatchNorm(name="norm")(x, mask, train=train)
