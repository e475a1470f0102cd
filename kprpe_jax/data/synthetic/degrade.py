"""Degrade an image: blur, resolution, noise, a cropped part."""

import jax
import jax.numpy as jnp

from kprpe_jax.data.synthetic.canvas import byte, hash_bits, unpack
from kprpe_jax.data.synthetic.nuisance import Shot


def degrade(packed: jax.Array, shot: Shot) -> jax.Array:
    """Blur, sample down and up, add noise, crop.

    Args:
      packed: int32 [S, S], from `render_face`.
      shot: scalars.
    Returns: float32 [3, S, S] in 0..1; the lost part is black.
    """
    size = packed.shape[-1]
    soft = (shot.blur > 0) | (shot.resolution < 1)
    # The compiler fuses nothing across a condition. Unpacked outside, each pixel would
    # be rendered again for all that reads it.
    image = jax.lax.cond(
        soft,
        lambda packed: _soften(unpack(packed), shot),
        lambda packed: unpack(packed),
        packed,
    )
    image = jnp.clip(image + shot.noise * _noise(shot.grain, size), 0, 1)
    place = (jnp.arange(size) + 0.5) / size
    return image * (_kept(place, shot.crop_y)[:, None] * _kept(place, shot.crop_x))


def _soften(image: jax.Array, shot: Shot) -> jax.Array:
    """Blur and resolution act along x and y alike, as one matrix."""
    size = image.shape[-1]
    weights = _weights(shot.blur * size / 112, shot.resolution, size)

    def along_rows(image: jax.Array) -> jax.Array:
        # One tall product: quicker than one for each channel.
        return (image.reshape(3 * size, size) @ weights.T).reshape(3, size, size)

    return along_rows(along_rows(image).swapaxes(1, 2)).swapaxes(1, 2)


def _weights(sigma: jax.Array, share: jax.Array, size: int) -> jax.Array:
    """Blur by sigma pixels, keep round(share * size) of them, and interpolate these.

    Each pixel kept is a Gaussian mean, as wide as the blur and the tent that bilinear
    sampling takes together; at the border the weights are scaled up.
    """
    count = jnp.maximum(jnp.round(share * size), 2)
    cell = size / count
    width = jnp.sqrt(sigma * sigma + (cell * cell - 1) / 6)
    pixel = jnp.arange(size, dtype=jnp.float32)

    def kept(number: jax.Array) -> jax.Array:
        center = (number + 0.5) * cell - 0.5
        distance = (center[:, None] - pixel) / jnp.maximum(width, 0.05)
        weights = jnp.exp(-0.5 * distance * distance)
        return weights / weights.sum(1, keepdims=True)

    place = jnp.clip((pixel + 0.5) / cell - 0.5, 0, count - 1)
    first = jnp.floor(place)
    share = (place - first)[:, None]
    second = jnp.minimum(first + 1, count - 1)
    return (1 - share) * kept(first) + share * kept(second)


def _noise(grain: jax.Array, size: int) -> jax.Array:
    """Nearly normal noise [3, S, S], mean 0 and variance 1: four bytes summed."""
    row, column = jnp.meshgrid(jnp.arange(3 * size), jnp.arange(size), indexing="ij")
    bits = hash_bits(row, column, grain)
    total = byte(bits, 0) + byte(bits, 1) + byte(bits, 2) + byte(bits, 3)
    return ((total - 2) * jnp.sqrt(3.0)).reshape(3, size, size)


def _kept(place: jax.Array, lost: jax.Array) -> jax.Array:
    """1 where a part of the given size, at the left if negative, is not lost."""
    return ((place >= -lost) & (place <= 1 - lost)).astype(jnp.float32)
