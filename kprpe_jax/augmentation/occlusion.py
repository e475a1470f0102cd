"""What covers parts of one image in black: a crop kept on the canvas, holes."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

_TRIES = 10  # crops sampled, of which the first that fits is taken
_RATIOS = (3 / 4, 4 / 3)  # width / height of a crop


class Occlusion(NamedTuple):
    """How often and how much is covered.

    crop_prob: of a crop that stays where it is, all around it black.
    crop_area: (low, high), its share of the image's area, uniform.
    hole_prob: of cut-out.
    holes: (fewest, most) square holes, their number uniform.
    hole_side: of a hole, as a share of the image's height.
    """

    crop_prob: float = 0.0
    crop_area: tuple[float, float] = (0.2, 1.0)
    hole_prob: float = 0.0
    holes: tuple[int, int] = (1, 1)
    hole_side: float = 1 / 7


class OcclusionSample(NamedTuple):
    """The sampled occlusion of one image, in pixels.

    crops: bool, whether there is a crop.
    crop: float32 [2, 2], its (top, left) and its (bottom, right).
    num_holes: int32, how many of `holes` there are.
    holes: int32 [most, 2], (top, left) of each.
    """

    crops: jax.Array
    crop: jax.Array
    num_holes: jax.Array
    holes: jax.Array


def sample(
    rng: jax.Array, settings: Occlusion, *, size: tuple[int, int]
) -> OcclusionSample:
    """Sample what covers one image.

    Args:
      rng: random key.
      settings: see `Occlusion`.
      size: (height, width) of the image.
    Returns: see `OcclusionSample`.
    """
    fewest, most = settings.holes
    numbers = jax.random.uniform(rng, (5 + 2 * _TRIES + 2 * most,))  # one generator
    crops, holes, number, top, left = numbers[:5]
    tries, corners = jnp.split(numbers[5:], [2 * _TRIES])
    number = fewest + jnp.floor(number * (most - fewest + 1)).astype(jnp.int32)
    free = np.array(size) - _hole_pixels(settings, size)
    return OcclusionSample(
        crops=crops < settings.crop_prob,
        crop=_crop(tries, jnp.stack([top, left]), settings.crop_area, size),
        num_holes=jnp.where(holes < settings.hole_prob, number, 0),
        holes=jnp.floor(corners.reshape(most, 2) * (free + 1)).astype(jnp.int32),
    )


def apply(image: jax.Array, sampled: OcclusionSample, settings: Occlusion) -> jax.Array:
    """Paint what is covered black.

    Args:
      image: float32 [H, W, 3] in [-1, 1].
      sampled: from `sample`.
      settings: the ones that `sample` had.
    Returns: float32 [H, W, 3].
    """
    size = image.shape[:2]
    side = _hole_pixels(settings, size)

    def cover() -> jax.Array:
        visible = _box(size, *sampled.crop) | ~sampled.crops
        holes = jax.vmap(lambda corner: _box(size, corner, corner + side))(
            sampled.holes
        )
        there = jnp.arange(len(holes)) < sampled.num_holes
        visible &= ~(holes & there[:, None, None]).any(axis=0)
        return jnp.where(visible[..., None], image, -1.0)

    return jax.lax.cond(sampled.crops | (sampled.num_holes > 0), cover, lambda: image)


def _crop(
    tries: jax.Array,
    place: jax.Array,
    area: tuple[float, float],
    size: tuple[int, int],
) -> jax.Array:
    """Crop [2, 2] of uniform area and uniform logarithm of its aspect ratio.

    Source: torchvision's RandomResizedCrop: the first try that fits; the whole image
    where none does.

    Args:
      tries: [2 * tries] in 0..1, areas and ratios.
      place: [2] in 0..1, where among the free places.
      area: (low, high), shares of the image's area.
      size: (height, width) of the image.
    """
    frame = np.array(size, np.float32)
    share, ratio = tries.reshape(2, -1)
    pixels = (area[0] + (area[1] - area[0]) * share) * size[0] * size[1]
    low, high = np.log(_RATIOS)
    ratio = jnp.exp(low + (high - low) * ratio)
    sides = jnp.round(jnp.sqrt(jnp.stack([pixels / ratio, pixels * ratio], axis=-1)))
    fits = (sides <= frame).all(axis=-1)
    crop = jnp.where(fits.any(), sides[fits.argmax()], frame)  # (height, width)
    corner = jnp.floor(place * (frame - crop + 1))
    return jnp.stack([corner, corner + crop])


def _hole_pixels(settings: Occlusion, size: tuple[int, int]) -> int:
    return min(max(round(settings.hole_side * size[0]), 1), *size)


def _box(size: tuple[int, int], low: jax.Array, high: jax.Array) -> jax.Array:
    """Pixels [H, W] from (top, left) up to, not including, (bottom, right)."""
    row, column = jnp.arange(size[0])[:, None], jnp.arange(size[1])
    rows = (row >= low[0]) & (row < high[0])
    return rows & (column >= low[1]) & (column < high[1])
