"""Flip, rotation, shear, translation and scaling as one affine map of one image."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kprpe_jax.geometry import affine
from kprpe_jax.geometry.sampling import warp_affine, warp_affine_in_passes

FACE_MIRROR = (1, 0, 2, 4, 3)  # where each of the five points' mirror image stands


class Spatial(NamedTuple):
    """How often and how far images move.

    flip_prob: of mirroring left and right.
    rotation_prob, rotation_degrees: angle uniform in -r .. r, about the center.
    shear_prob, shear: coefficient uniform in -s .. s, along x.
    scale_prob, scale: expansion of both axes, uniform in (low, high).
    translation_prob, translation: the frame's center moves by at most half of
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

    @property
    def stays_upright(self) -> bool:
        """Whether `warp_affine_in_passes` does for every motion that can happen."""
        turn = self.rotation_degrees if self.rotation_prob > 0 else 0
        shear = self.shear if self.shear_prob > 0 else 0
        return turn + np.rad2deg(np.arctan(shear)) <= 35


class Motion(NamedTuple):
    """The sampled motion of one image.

    matrix: float32 [2, 3], where content goes, in the pixels of `affine`.
    flip: bool, whether the matrix mirrors.
    moves: bool, whether it does anything else.
    """

    matrix: jax.Array
    flip: jax.Array
    moves: jax.Array


def sample(rng: jax.Array, settings: Spatial, *, size: tuple[int, int]) -> Motion:
    """Sample one image's motion.

    Rotation, then shear, then translation, then scaling, all about the image's center,
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
      motion: from `sample`.
      settings: the ones that `sample` had.
    Returns: float32 [H, W, 3]; a motion that is none, or only a flip, is exact.
    """
    if settings.flip_prob > 0:
        flipped = jnp.where(motion.flip, image[:, ::-1], image)
    else:
        flipped = image
    if not settings.resamples:
        return flipped

    def gathered(image: jax.Array, inverse: jax.Array) -> jax.Array:
        return warp_affine(image, inverse, out_size=image.shape[1:3], outside=-1.0)

    def in_passes(image: jax.Array, inverse: jax.Array) -> jax.Array:
        return warp_affine_in_passes(image, inverse, outside=-1.0)

    def sampled() -> jax.Array:
        return jax.lax.platform_dependent(
            image[None],
            affine.invert(motion.matrix)[None],
            # A TPU's gather moves 128 numbers for each pixel's three.
            tpu=in_passes if settings.stays_upright else gathered,
            default=gathered,
        )[0]

    return jax.lax.cond(motion.moves, sampled, lambda: flipped)


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
      motion: from `sample`.
      size: (height, width) of the image.
      mirror: K indices; in a flipped image point k is the old point mirror[k].
    Returns: float32 [K, 2], may leave 0..1; untouched where nothing moved.
    """
    swapped = jnp.where(motion.flip, keypoints[np.array(mirror, int)], keypoints)
    moved = affine.transform_keypoints(
        swapped, motion.matrix, in_size=size, out_size=size
    )
    return jnp.where(motion.flip | motion.moves, moved, keypoints)
