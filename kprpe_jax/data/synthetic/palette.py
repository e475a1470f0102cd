"""Colors of a person, from a few natural scales."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from kprpe_jax.data.synthetic.identity import Identity

# RGB in 0..1.
_SKIN_FAIR, _SKIN_DARK = (0.97, 0.80, 0.70), (0.33, 0.20, 0.14)
_HAIR_FAIR, _HAIR_RED = (0.80, 0.66, 0.44), (0.55, 0.27, 0.13)
_HAIR_BLACK = (0.07, 0.055, 0.05)
_IRIS_BROWN, _IRIS_BLUE = (0.28, 0.16, 0.08), (0.36, 0.52, 0.62)
_LIP = (0.72, 0.30, 0.31)


class Palette(NamedTuple):
    """RGB in 0..1, float32 [3] each."""

    skin: jax.Array
    hair: jax.Array
    iris: jax.Array
    lips: jax.Array
    brows: jax.Array


def make_palette(face: Identity) -> Palette:
    """Mix a person's colors.

    Args:
      face: scalars.
    """
    dark = jnp.clip(face.skin_dark, 0, 1)
    skin = _mix(_SKIN_FAIR, _SKIN_DARK, dark)
    skin = skin * (1 + 0.05 * face.skin_red * jnp.array([0.6, -1.0, -1.0]))
    # Dark skin seldom comes with fair hair or blue eyes.
    black = jnp.clip(face.hair_dark + 0.4 * (dark - 0.3), 0, 1)
    fair = _mix(_HAIR_FAIR, _HAIR_RED, jnp.clip(face.hair_red, 0, 1))
    hair = _mix(fair, _HAIR_BLACK, black)
    blue = jnp.clip(face.iris_blue - 0.6 * (dark - 0.3), 0, 1)
    lips = _mix(skin * jnp.array([0.86, 0.66, 0.64]), _LIP, 0.7 * face.lip_red)
    return Palette(
        skin,
        hair,
        _mix(_IRIS_BROWN, _IRIS_BLUE, blue),
        lips * (1 - 0.25 * dark),
        hair * 0.8,
    )


def _mix(a: jax.Array, b: jax.Array, share: jax.Array) -> jax.Array:
    a, b = jnp.asarray(a), jnp.asarray(b)
    return a + jnp.clip(share, 0, 1) * (b - a)
