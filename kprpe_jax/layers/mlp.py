"""The transformer's two-layer perceptron."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike


@jax.custom_vjp
def relu6(x: Array) -> Array:
    """x between 0 and 6, with the gradient 0 at and beyond both.

    The backward pass keeps the result alone, which the next layer keeps anyway.
    """
    return jnp.clip(x, 0, 6)


def _relu6_forward(x: Array) -> tuple[Array, Array]:
    out = relu6(x)
    return out, out


def _relu6_backward(out: Array, gradient: Array) -> tuple[Array]:
    return (jnp.where((out > 0) & (out < 6), gradient, 0),)


relu6.defvjp(_relu6_forward, _relu6_backward)

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu6": relu6,
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
