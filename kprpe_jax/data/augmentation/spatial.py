"""Flip, rotation, shear, translation and scaling as one affine map of one image."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kprpe_jax.geometry import affine

FACE_MIRROR = (1, 0, 2, 4, 3)  # where each of the five points' mirror image stands


class Spatial(NamedTuple):
    """How often and how far pictures move.

    flip_prob: of mirroring left and right.
    rotation_prob, rotation_degrees: angle uniform in -r .. r, about the centre.
    shear_prob, shear: coefficient uniform in -s .. s, along x.
    scale_prob, scale: expansion of both axes, uniform in (low, high).
    translation_prob, translation: the frame's centre moves by at most half of
      |1 / scale - 1 + extra| of the side, extra uniform in 0 .. translation: what
      scaling left free, and some more.
    """

    flip_prob: float = 0.0
    rotation_prob: float = 0.0
    rotation_degrees: float = 20.0
    shear_prob: float = 0.0
    shear: float = 0.2
    scale_prob: float = 0.0
    scale: tuple[float, float] = (0.8, 1.2)
    translation_prob: float = 0.0
    translation: float = 0.1

    @property
    def resamples(self) -> bool:
        """Whether anything but a flip can happen."""
        return (
            max(
                self.rotation_prob,
                self.shear_prob,
                self.scale_prob,
                self.translation_prob,
            )
            > 0
        )


class Motion(NamedTuple):
    """What `draw` drew for one image.

    matrix: float32 [2, 3], where content goes, in the pixels of `affine`.
    flip: bool, whether the matrix mirrors.
    moves: bool, whether it does anything else.
    """

    matrix: jax.Array
    flip: jax.Array
    moves: jax.Array


def draw(rng: jax.Array, settings: Spatial, *, size: tuple[int, int]) -> Motion:
    """Draw one image's motion.

    Rotation, then shear, then translation, then scaling, all about the image's centre,
    then the flip.

    Args:
      rng: random key.
      settings: see `Spatial`.
      size: (height, width) of the image.
    Returns: see `Motion`.
    """
    probabilities = np.array(
        [
            settings.flip_prob,
            settings.rotation_prob,
            settings.shear_prob,
            settings.scale_prob,
            settings.translation_prob,
        ],
        np.float32,
    )
    # One call for all numbers: each call would add its own generator to the program.
    numbers = jax.random.uniform(rng, (11,))
    applied = numbers[:5] < probabilities
    flip, turns, shears, scales, shifts = applied
    angle, slant, scale, extra = numbers[5:9]
    low, high = settings.scale
    center = jnp.array(size[::-1], jnp.float32) / 2
    angle = jnp.where(turns, settings.rotation_degrees * (2 * angle - 1), 0)
    slant = jnp.where(shears, settings.shear * (2 * slant - 1), 0)
    scale = jnp.where(scales, low + (high - low) * scale, 1)
    slack = 1 / scale - 1 + settings.translation * extra
    shift = jnp.where(shifts, slack * center * (2 * numbers[9:] - 1), 0)
    mirror = jnp.array([jnp.where(flip, -1, 1), 1])
    matrix = affine.compose(
        affine.rotation(angle, center),
        affine.shear(slant, center),
        affine.translation(-shift),
        affine.scaling(scale * mirror, center),
    )
    return Motion(matrix, flip, applied[1:].any())


def warp(image: jax.Array, motion: Motion, settings: Spatial) -> jax.Array:
    """Move one image: at most one bilinear sampling; black comes in from outside.

    Args:
      image: float32 [H, W, 3] in [-1, 1].
      motion: from `draw`.
      settings: the ones that `draw` had.
    Returns: float32 [H, W, 3]; a motion that is none, or only a flip, is exact.
    """
    if settings.flip_prob > 0:
        flipped = jnp.where(motion.flip, image[:, ::-1], image)
    else:
        flipped = image
    if not settings.resamples:
        return flipped

    return jax.lax.cond(
        motion.moves, lambda: _sample(image, motion.matrix), lambda: flipped
    )


def move_keypoints(
    keypoints: jax.Array,
    motion: Motion,
    *,
    size: tuple[int, int],
    mirror: Sequence[int],
) -> jax.Array:
    """Take one image's keypoints along.

    Args:
      keypoints: [K, 2], (x, y) in 0..1.
      motion: from `draw`.
      size: (height, width) of the image.
      mirror: K indices; in a flipped image point k is the old point mirror[k].
    Returns: float32 [K, 2], may leave 0..1; untouched where nothing moved.
    """
    swapped = jnp.where(motion.flip, keypoints[np.array(mirror, int)], keypoints)
    moved = affine.transform_keypoints(
        swapped, motion.matrix, in_size=size, out_size=size
    )
    return jnp.where(motion.flip | motion.moves, moved, keypoints)


def _sample(image: jax.Array, matrix: jax.Array) -> jax.Array:
    """Move one image [H, W, 3] bilinearly; black outside, fading in over one pixel.

    `sampling.warp_affine` of one image, laid out for speed: a pixel and its three
    neighbours stand side by side, so that one gather of 12 numbers makes a pixel.
    """
    height, width, channels = image.shape
    y, x = jnp.meshgrid(
        jnp.arange(height) + 0.5, jnp.arange(width) + 0.5, indexing="ij"
    )
    centers = jnp.stack([x, y], axis=-1)  # [H, W, 2], pixel-edge coordinates
    points = affine.apply(affine.invert(matrix), centers) - 0.5
    points = jnp.clip(points, -1, jnp.array([width, height]))
    corner = jnp.floor(points)
    x, y = jnp.split(points - corner, 2, axis=-1)  # 0..1 between the pixels
    column, row = jnp.moveaxis(corner.astype(jnp.int32) + 1, -1, 0)
    index = row * (width + 2) + column

    border = ((1, 2), (1, 2), (0, 0))
    padded = jnp.pad(image, border, constant_values=-1.0)
    neighbours = jnp.concatenate(
        [padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]], axis=-1
    ).reshape(-1, 4 * channels)
    # The barriers keep the compiler from working out index and pixel anew for every
    # number that it reads: 20 times slower on a CPU.
    index = jax.lax.optimization_barrier(index)
    values = neighbours.at[index].get(mode="promise_in_bounds")
    values = jax.lax.optimization_barrier(values)
    a, b, c, d = jnp.split(values, 4, axis=-1)
    return (1 - y) * ((1 - x) * a + x * b) + y * ((1 - x) * c + x * d)
