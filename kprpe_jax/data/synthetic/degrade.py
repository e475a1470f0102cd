"""What a camera and a file do to a picture: blur, few pixels, noise, a lost part."""

import jax
import jax.numpy as jnp

from kprpe_jax.data.synthetic.canvas import byte, hash_bits
from kprpe_jax.data.synthetic.nuisance import Shot


def degrade(image: jax.Array, shot: Shot) -> jax.Array:
    """Blur, sample down and up, add noise, crop.

    Blur and resolution act along x and y alike, so each is one matrix [S, S], and so
    is their product.

    Args:
      image: float32 [3, S, S] in 0..1.
      shot: scalars.
    Returns: float32 [3, S, S] in 0..1; the lost part is black.
    """
    size = image.shape[-1]
    operator = _resolution(shot.resolution, size) @ _blur(shot.blur * size / 112, size)
    image = jnp.einsum("yv,cvu,xu->cyx", operator, image, operator)
    image = jnp.clip(image + shot.noise * _noise(shot.grain, size), 0, 1)
    place = (jnp.arange(size) + 0.5) / size
    return image * (_kept(place, shot.crop_y)[:, None] * _kept(place, shot.crop_x))


def is_damaged(shot: Shot) -> jax.Array:
    """Whether `degrade` changes anything, bool [...]."""
    cropped = (shot.crop_x != 0) | (shot.crop_y != 0)
    return cropped | (shot.blur > 0) | (shot.noise > 0) | (shot.resolution < 1)


def _blur(sigma: jax.Array, size: int) -> jax.Array:
    """Gaussian of sigma pixels; at the border the weights are scaled up."""
    place = jnp.arange(size, dtype=jnp.float32)
    distance = (place[:, None] - place) / jnp.maximum(sigma, 0.01)
    weights = jnp.exp(-0.5 * distance * distance)
    return weights / weights.sum(1, keepdims=True)


def _resolution(share: jax.Array, size: int) -> jax.Array:
    """Sample down to round(share * size) pixels and up again, bilinearly."""
    count = jnp.maximum(jnp.round(share * size), 2)
    place = (jnp.arange(size) + 0.5) * (count / size) - 0.5
    place = jnp.clip(place, 0, count - 1)
    up = jnp.maximum(1 - jnp.abs(place[:, None] - jnp.arange(size)), 0)  # [S, few]
    down = up / jnp.maximum(up.sum(0), 1e-6)  # unused columns stay zero
    return up @ down.T


def _noise(grain: jax.Array, size: int) -> jax.Array:
    """Nearly normal noise [3, S, S], mean 0 and variance 1: four bytes summed."""
    row, column = jnp.meshgrid(jnp.arange(3 * size), jnp.arange(size), indexing="ij")
    bits = hash_bits(row, column, grain)
    total = byte(bits, 0) + byte(bits, 1) + byte(bits, 2) + byte(bits, 3)
    return ((total - 2) * jnp.sqrt(3.0)).reshape(3, size, size)


def _kept(place: jax.Array, lost: jax.Array) -> jax.Array:
    """1 where a part of the given size, at the left if negative, is not lost."""
    return ((place >= -lost) & (place <= 1 - lost)).astype(jnp.float32)
