"""A network that embeds the colors of the upper and the lower half."""

import flax.linen as nn
import jax.numpy as jnp

from kprpe_jax.backbones.network import Network
from kprpe_jax.core.features import Features

SIZE, D = 32, 6


class Thirds(Network):
    """Depends on the image alone; its style has `style` equal channels."""

    style: int = 5
    image_size = (SIZE, SIZE)

    @nn.compact
    def features(self, images, keypoints=None, *, train=False, style_maps=()):
        gain = self.param("gain", nn.initializers.ones, ())
        halves = images.reshape(len(images), 2, SIZE // 2, SIZE, 3).mean((2, 3))
        style = jnp.ones((len(images), self.style, 2)) * halves.mean()
        return Features(gain * halves.reshape(-1, D), style=style)
