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
    # The 3 x 3 kernel of ones with 5 in the middle, over 13.
    rows = image[:-2] + image[1:-1] + image[2:]
    box = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    smooth = jnp.pad((box + 4 * image[1:-1, 1:-1]) / 13, ((1, 1), (1, 1), (0, 0)))
    height, width = image.shape[:2]
    row, column = jnp.arange(height)[:, None, None], jnp.arange(width)[:, None]
    inside = (row > 0) & (row < height - 1) & (column > 0) & (column < width - 1)
    return _clip(jnp.where(inside, _mix(smooth, image, factor), image))


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
    return jax.lax.platform_dependent(
        image, levels, tpu=equalize_by_sums, default=equalize_by_tables
    )


def equalize_by_tables(image: jax.Array, levels: jax.Array) -> jax.Array:
    """Equalize with a histogram that is scattered into and a curve looked up in.

    Args:
      image: [H, W, 3].
      levels: int32 [H, W, 3], 0..255, of the image.
    Returns: [H, W, 3].
    """
    place = levels + 256 * jnp.arange(3)  # in one table for the three channels
    # The barriers keep index and look-up out of the loops around them: on a CPU those
    # would work them out again and again.
    place = jax.lax.optimization_barrier(place)
    counts = jnp.zeros(768, jnp.int32).at[place].add(1, mode="promise_in_bounds")
    curve, steps = _equalizing_curve(counts.reshape(3, 256))
    looked_up = curve.reshape(768).at[place].get(mode="promise_in_bounds")
    looked_up = jax.lax.optimization_barrier(looked_up)
    return jnp.where(steps, looked_up, image)


def equalize_by_sums(image: jax.Array, levels: jax.Array) -> jax.Array:
    """Equalize without scatter and gather; to rounding, `equalize_by_tables`.

    Every pixel is compared with all 256 levels, twice, in loops that write nothing but
    their sums. On a TPU that is cheap, and a table is not: it moves 128 numbers for
    each one that it looks up.

    Args:
      image: [H, W, 3].
      levels: int32 [H, W, 3], 0..255, of the image.
    Returns: [H, W, 3].
    """
    is_level = levels[..., None] == jnp.arange(256)  # [H, W, 3, 256]
    curve, steps = _equalizing_curve(is_level.sum(axis=(0, 1), dtype=jnp.int32))
    looked_up = jnp.where(is_level, curve, 0).sum(axis=-1)
    return jnp.where(steps, looked_up, image)


def _equalizing_curve(counts: jax.Array) -> tuple[jax.Array, jax.Array]:
    """New values float32 [3, 256] of all levels; bool [3], whether they are to be used.

    Pillow's curve, in whole numbers: the brightest level's pixels do not count.
    """
    above = jnp.cumsum(counts[:, ::-1], axis=1)[:, ::-1]  # at this level or brighter
    total = above[:, :1]
    brightest = jnp.where(above == counts, counts, 0).max(axis=1, keepdims=True)
    step = (total - brightest) // 255
    divisor = jnp.maximum(step, 1)
    below = total - above
    curve = jnp.minimum((below + divisor // 2) // divisor, 255) / 127.5 - 1
    return curve, step[:, 0] > 0


def _levels(image: jax.Array) -> jax.Array:
    """Values in [-1, 1] as whole levels 0..255, float32."""
    return jnp.clip(jnp.round((image + 1) * 127.5), 0, 255)


def _mix(other: jax.Array, image: jax.Array, factor: jax.Array) -> jax.Array:
    return other + factor * (image - other)


def _blend(other: jax.Array, image: jax.Array, factor: jax.Array) -> jax.Array:
    return _clip(_mix(other, image, factor))


def _clip(image: jax.Array) -> jax.Array:
    return jnp.clip(image, -1.0, 1.0)
