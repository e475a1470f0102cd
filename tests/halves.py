"""A network that reads the brightness of regions, as a recognizer."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from kprpe_jax.backbones.network import Network
from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.core.input_spec import InputSpec

PHOTOS_SIZE = 8


class Halves(Network):
    """Embeds the brightness of the left and the right half, times a gain."""

    image_size: tuple[int, int] = (PHOTOS_SIZE, PHOTOS_SIZE)
    output_dim: int = 2
    patch_map = "halves"
    style_maps = ("halves",)

    def setup(self):
        self.gain = self.param("gain", nn.initializers.ones, ())

    @property
    def grid(self):
        return 1, 2

    def feature_maps(self, images, keypoints=None, *, train=False):
        half = self.image_size[1] // 2
        parts = images.reshape(len(images), self.image_size[0], 2, half, 3)
        return {"halves": parts.mean((1, 3, 4))[:, None, :, None]}

    def embed_map(self, halves, *, train=False):
        return self.gain * halves.reshape(len(halves), 2)

    def features(self, images, keypoints=None, *, train=False, style_maps=()):
        features = super().features(images, keypoints, train=train)
        halves = self.feature_maps(images)["halves"][:, 0]  # [B, 2, 1]
        return features._replace(style=jnp.concatenate([halves, 2 * halves], -1))


def recognizer(gain: float = 2.0) -> Recognizer:
    """With a gain that a fingerprint can tell."""
    variables = {"params": {"gain": np.float32(gain)}}
    spec = InputSpec((PHOTOS_SIZE, PHOTOS_SIZE))
    return Recognizer(variables, Halves(), spec, "halves")
