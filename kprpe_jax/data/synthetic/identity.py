"""Parameters of a synthetic person, shared by all images of one identity.

Lengths are in pixels of the 112 x 112 aligned frame (`geometry.template`), x counted
from the middle of the face, y from the top of the frame: eyes near y = 52, mouth near
92.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

_LIMIT = 2.2  # standard deviations; beyond, a face would fall apart


class Identity(NamedTuple):
    """Parameters of a face [...]; the defaults are the average face.

    Widths of symmetric parts are half widths.
    """

    face_width: jax.Array | float = 40.0  # at the cheekbones
    cheek_y: jax.Array | float = 57.0  # where the face is widest
    chin_y: jax.Array | float = 113.0
    jaw_square: jax.Array | float = 0.15  # 0 = ellipse, 0.6 = square jaw
    jaw_taper: jax.Array | float = 0.1  # how much the chin narrows
    skull_y: jax.Array | float = -14.0  # top of the head
    ear_size: jax.Array | float = 10.5
    neck_width: jax.Array | float = 23.0
    eye_x: jax.Array | float = 17.6
    eye_y: jax.Array | float = 51.6
    eye_width: jax.Array | float = 8.6
    lid_upper: jax.Array | float = 3.8  # height above the line between the corners
    lid_lower: jax.Array | float = 2.5
    eye_slant: jax.Array | float = -0.9  # of the outer corner, negative = up
    iris: jax.Array | float = 3.9  # radius
    crease: jax.Array | float = 2.6  # from upper lid to its fold
    brow_y: jax.Array | float = 41.0
    brow_width: jax.Array | float = 11.0
    brow_arch: jax.Array | float = 2.4
    brow_slant: jax.Array | float = -0.3  # of the outer end, negative = up
    brow_thick: jax.Array | float = 1.7
    nose_y: jax.Array | float = 71.7  # of the tip
    nose_width: jax.Array | float = 8.2
    nose_bridge: jax.Array | float = 4.2
    nose_height: jax.Array | float = 12.0
    mouth_y: jax.Array | float = 92.3  # of the corners
    mouth_width: jax.Array | float = 14.6
    mouth_bow: jax.Array | float = 1.2  # the middle below the corners
    mouth_open: jax.Array | float = 0.0
    lip_upper: jax.Array | float = 3.3
    lip_lower: jax.Array | float = 4.6
    hairline_y: jax.Array | float = 15.0
    hairline_temple: jax.Array | float = 30.0  # drop toward the temples
    hair_part: jax.Array | float = 0.0  # slope of the hairline, over the face's width
    hair_volume: jax.Array | float = 6.0
    hair_length: jax.Array | float = 75.0  # where side hair ends
    hair_dark: jax.Array | float = 0.7  # 0 = fair, 1 = black
    hair_red: jax.Array | float = 0.4
    hair_streak: jax.Array | float = 0.1
    beard: jax.Array | float = -0.35  # below 0 = none
    skin_dark: jax.Array | float = 0.38
    skin_red: jax.Array | float = 0.0
    iris_blue: jax.Array | float = 0.35
    lip_red: jax.Array | float = 0.5
    blush: jax.Array | float = 0.3
    freckles: jax.Array | float = -0.05  # share of cells with one
    folds: jax.Array | float = 0.25  # from nose to mouth
    eye_bags: jax.Array | float = 0.3
    mole_1_x: jax.Array | float = 0.0
    mole_1_y: jax.Array | float = 78.0
    mole_1: jax.Array | float = -0.2  # radius; below 0 = none
    mole_2_x: jax.Array | float = 0.0
    mole_2_y: jax.Array | float = 60.0
    mole_2: jax.Array | float = -0.4
    scar_x: jax.Array | float = 0.0
    scar_y: jax.Array | float = 66.0
    scar_slope: jax.Array | float = 0.0
    scar: jax.Array | float = -0.7  # strength; below 0 = none
    texture: jax.Array | int = 0  # uint32, where freckles and streaks lie


# Standard deviations, in the order of the fields; `texture` is sampled apart.
SPREAD = Identity(
    *(2.6, 2.5, 4.0, 0.2, 0.08, 4.0, 1.4, 2.5),
    *(1.3, 1.2, 0.8, 0.6, 0.4, 0.9, 0.3, 0.8),
    *(1.7, 1.0, 1.2, 0.9, 0.5),
    *(2.0, 1.2, 0.7, 3.0),
    *(1.7, 1.5, 0.7, 0.0, 0.8, 1.0),
    *(6.5, 7.0, 5.0, 2.8, 28.0, 0.28, 0.3, 0.05),
    *(0.5, 0.24, 0.05, 0.4, 0.25, 0.2, 0.1, 0.2, 0.2),
    *(18.0, 14.0, 0.8, 18.0, 14.0, 0.8, 16.0, 14.0, 0.8, 0.7),
    0,
)


def sample_identity(seed: int | jax.Array, identity: jax.Array) -> Identity:
    """Sample the parameters of a person; the same for the same numbers, anywhere.

    Every parameter is normal around the average face and cut at 2.2 standard
    deviations, so that there is no gap between people and some look alike.

    Args:
      seed: of the data set.
      identity: int32 scalar, the person's number.
    Returns: parameters, scalars.
    """
    key = jax.random.fold_in(person_key(seed, identity), 0)
    bits = jax.random.bits(key, (len(SPREAD),))
    mean, spread = np.float32(Identity()[:-1]), np.float32(SPREAD[:-1])
    return Identity(*(mean + spread * to_normal(bits[:-1])), bits[-1])


def person_key(seed: int | jax.Array, identity: jax.Array) -> jax.Array:
    """The random key of a person: 0 folded in gives the appearance, i + 1 image i."""
    return jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), identity)


def to_uniform(bits: jax.Array) -> jax.Array:
    """Turn random bits uint32 to float32, uniform in 0..1 without the ends."""
    return ((bits >> 8).astype(jnp.float32) + 0.5) / 2**24


def to_normal(bits: jax.Array) -> jax.Array:
    """Turn random bits uint32 to float32, normal and cut at 2.2 standard deviations."""
    normal = jnp.sqrt(2.0) * jax.lax.erf_inv(2 * to_uniform(bits) - 1)
    return jnp.clip(normal, -_LIMIT, _LIMIT)
