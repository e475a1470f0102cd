"""The transformer's two-layer perceptron."""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu6": nn.relu6,
    "gelu": lambda x: nn.gelu(x, approximate=False),
}


class Mlp(nn.Module):
    """Linear, activation, linear.

    Attributes:
      hidden_dim: width between the two layers.
      activation: key of ACTIVATIONS; the official vision transformers use `relu6`.
      dtype: compute type.
      kernel_init: of both layers.
    """

    hidden_dim: int
    activation: str = "relu6"
    dtype: DTypeLike = jnp.float32
    kernel_init: Initializer = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[..., C] -> [..., C]."""
        options = dict(dtype=self.dtype, kernel_init=self.kernel_init)
        hidden = nn.Dense(self.hidden_dim, **options, name="fc1")(x)
        hidden = ACTIVATIONS[self.activation](hidden)
        return nn.Dense(x.shape[-1], **options, name="fc2")(hidden)
