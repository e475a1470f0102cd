"""Operations on the colors of one image: float32 [H, W, 3], RGB, in [-1, 1].

Each is Pillow's operation of the same name without its rounding to whole gray levels;
results are clipped to [-1, 1]. Black is -1; a level is one of 0..255.
"""

import jax
import jax.numpy as jnp
import numpy as np

_GRAY = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R 601 luma, as in Pillow


def brightness(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Blend with black.

    Args:
      image: [H, W, 3].
      factor: 0 is black, 1 the image.
    Returns: [H, W, 3].
    """
    return _clip((image + 1) * factor - 1)


def contrast(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Blend with the image's mean gray.

    Args:
      image: [H, W, 3].
      factor: 0 is an even gray, 1 the image, more is more contrast.
    Returns: [H, W, 3].
    """
    return _blend((image @ _GRAY).mean(), image, factor)


def saturation(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Blend with the gray image.

    Args:
      image: [H, W, 3].
      factor: 0 is gray, 1 the image, more is more colorful.
    Returns: [H, W, 3].
    """
    return _blend((image @ _GRAY)[..., None], image, factor)


def gray(image: jax.Array) -> jax.Array:
    """Image without colors, [H, W, 3]."""
    return saturation(image, 0.0)


def sharpness(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Blend with a smoothed image; pixels on the image's border stay.

    Args:
      image: [H, W, 3].
      factor: 0 is smooth, 1 the image, more is sharper.
    Returns: [H, W, 3].
    """
    inner = image[1:-1, 1:-1]
    # The 3 x 3 kernel of ones with 5 in the middle, over 13.
    rows = image[:-2] + image[1:-1] + image[2:]
    box = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    smooth = (box + 4 * inner) / 13
    return _clip(image.at[1:-1, 1:-1].set(_mix(smooth, inner, factor)))


def invert(image: jax.Array) -> jax.Array:
    """Negative, [H, W, 3]."""
    return -image


def solarize(image: jax.Array, threshold: jax.Array) -> jax.Array:
    """Invert all values that are not below a threshold.

    Args:
      image: [H, W, 3].
      threshold: level, 0..256; 256 changes nothing.
    Returns: [H, W, 3].
    """
    return jnp.where(_levels(image) < threshold, image, -image)


def posterize(image: jax.Array, bits: jax.Array) -> jax.Array:
    """Keep only the highest bits of each value's level.

    Args:
      image: [H, W, 3].
      bits: int32, 1..8.
    Returns: [H, W, 3].
    """
    step = jnp.exp2(8.0 - bits)
    return jnp.floor(_levels(image) / step) * step / 127.5 - 1


def autocontrast(image: jax.Array) -> jax.Array:
    """Stretch each channel to the full range; an even channel stays as it is.

    Args:
      image: [H, W, 3].
    Returns: [H, W, 3].
    """
    low, high = image.min(axis=(0, 1)), image.max(axis=(0, 1))
    span = high - low
    stretched = (image - low) * (2 / jnp.where(span > 0, span, 1)) - 1
    return jnp.where(span > 0, _clip(stretched), image)


def equalize(image: jax.Array) -> jax.Array:
    """Make each channel's histogram flat; an even channel stays as it is.

    Args:
      image: [H, W, 3].
    Returns: [H, W, 3].
    """
    levels = _levels(image).astype(jnp.int32)
    place = levels + 256 * jnp.arange(3)  # in one table for the three channels
    # The barriers keep index and look-up out of the loops around them: on a CPU those
    # would work them out again and again.
    place = jax.lax.optimization_barrier(place)
    counts = jnp.zeros(768, jnp.int32).at[place].add(1, mode="promise_in_bounds")
    counts = counts.reshape(3, 256)

    # Pillow's curve, in whole numbers: the brightest level's pixels do not count.
    brightest = counts[jnp.arange(3), levels.max(axis=(0, 1))]
    step = (levels.shape[0] * levels.shape[1] - brightest) // 255
    divisor = jnp.maximum(step, 1)[:, None]
    below = jnp.cumsum(counts, axis=1) - counts
    curve = jnp.minimum((below + divisor // 2) // divisor, 255) / 127.5 - 1
    looked_up = curve.reshape(768).at[place].get(mode="promise_in_bounds")
    looked_up = jax.lax.optimization_barrier(looked_up)
    return jnp.where(step > 0, looked_up, image)


def _levels(image: jax.Array) -> jax.Array:
    """Values in [-1, 1] as whole levels 0..255, float32."""
    return jnp.clip(jnp.round((image + 1) * 127.5), 0, 255)


def _mix(other: jax.Array, image: jax.Array, factor: jax.Array) -> jax.Array:
    return other + factor * (image - other)


def _blend(other: jax.Array, image: jax.Array, factor: jax.Array) -> jax.Array:
    return _clip(_mix(other, image, factor))


def _clip(image: jax.Array) -> jax.Array:
    return jnp.clip(image, -1.0, 1.0)
