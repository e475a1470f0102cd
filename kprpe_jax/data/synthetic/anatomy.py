"""The curves of a face, from which both its landmarks and its image are made.

Points are (x, y) in face coordinates: see `identity`. Everything is elementwise in x, y
and in q, a place along a feature from -1 to 1.
"""

import jax
import jax.numpy as jnp

from kprpe_jax.data.synthetic.identity import Identity
from kprpe_jax.data.synthetic.nuisance import Shot

_DOME = (46.0, 76.0)  # half axes of the head's dome
_DOME_HEIGHT = 30.0
_DOME_Y = 62.0


def express(face: Identity, shot: Shot) -> Identity:
    """Put the shot's expression on a face.

    Args:
      face: scalars.
      shot: its `mouth_open`, `smile`, `brow_raise` and `eyes_closed` are used.
    Returns: the same face with moved parts.
    """
    opening = 9 * shot.mouth_open
    # Closed lids meet a little above the lower one, which hardly moves.
    lid = face.lid_upper * (1 - shot.eyes_closed) - face.lid_lower * shot.eyes_closed
    return face._replace(
        mouth_open=face.mouth_open + opening,
        mouth_bow=face.mouth_bow + 3.5 * shot.smile,
        mouth_y=face.mouth_y - 2.0 * shot.smile,
        mouth_width=face.mouth_width * (1 + 0.18 * shot.smile - 0.12 * shot.mouth_open),
        lip_upper=face.lip_upper * (1 - 0.25 * jnp.maximum(shot.smile, 0)),
        chin_y=face.chin_y + 0.6 * opening,
        brow_y=face.brow_y - 3.0 * shot.brow_raise,
        lid_upper=lid,
        lid_lower=face.lid_lower * (1 - 0.2 * shot.smile),
        folds=face.folds + 0.35 * jnp.maximum(shot.smile, 0),
    )


def jaw(face: Identity, t: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Half width and y of the jaw; t in 0 (cheek) .. 1 (chin)."""
    # Factored, so that the chin lies exactly in the middle.
    inside = (1 - t) * (1 + t) * (1 + face.jaw_square * t**2)
    x = face.face_width / (1 + face.jaw_taper * t**2) * jnp.sqrt(inside)
    return x, face.cheek_y + t * (face.chin_y - face.cheek_y)


def head_distance(face: Identity, x: jax.Array, y: jax.Array) -> jax.Array:
    """About the distance to the outline of jaw and skull, negative inside."""
    down = y > face.cheek_y
    t = (y - face.cheek_y) / jnp.where(
        down, face.chin_y - face.cheek_y, face.cheek_y - face.skull_y
    )
    t2 = jnp.minimum(t * t, 4)
    square = jnp.where(down, face.jaw_square, 0.35)
    taper = jnp.where(down, face.jaw_taper, 0) * t2
    across = x * (1 + taper) / face.face_width
    gauge = across * across + t2 * (1 - square + square * t2)
    return (jnp.sqrt(gauge) - 1) * face.face_width


def hairline(face: Identity, x: jax.Array) -> jax.Array:
    """Y below which the forehead is bare."""
    q = x / face.face_width
    q2 = jnp.minimum(q * q, 1.5)
    return face.hairline_y + face.hair_part * q + face.hairline_temple * q2 * q2


def lids(face: Identity, q: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Y of the upper and lower lid; q from the inner (-1) to the outer corner (1)."""
    line = face.eye_y + face.eye_slant * q
    arc = 1 - q * q
    # The upper lid is highest toward the nose, the lower lowest away from it.
    upper = line - face.lid_upper * arc * (1 - 0.2 * q)
    return upper, line + face.lid_lower * arc * (1 + 0.2 * q)


def brow(face: Identity, q: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Y of the middle and half thickness; q from the inner to the outer end."""
    middle = face.brow_y + face.brow_slant * q - face.brow_arch * (1 - (q - 0.2) ** 2)
    return middle + face.brow_arch * 0.6, face.brow_thick * (1 - 0.45 * q)


def lips(face: Identity, q: jax.Array) -> tuple[jax.Array, ...]:
    """Y of four edges: outer upper, inner upper, inner lower, outer lower lip."""
    arc = 1 - q * q
    middle = face.mouth_y + face.mouth_bow * arc
    upper = middle - 0.25 * face.mouth_open * arc
    lower = middle + 0.75 * face.mouth_open * arc
    cupid = 1 - 0.25 / (1 + 40 * q * q)
    return (
        upper - face.lip_upper * arc * cupid,
        upper,
        lower,
        lower + face.lip_lower * arc * (0.6 + 0.4 * arc),
    )


def bump(u: jax.Array, v: jax.Array) -> jax.Array:
    """A smooth hill of height 1 at u = v = 0, without an exponential."""
    hill = 1 / (1 + u * u + v * v)
    return hill * hill


def depth(face: Identity, x: jax.Array, y: jax.Array) -> jax.Array:
    """Height of dome and nose toward the viewer, in pixels."""
    u, v = x / _DOME[0], (y - _DOME_Y) / _DOME[1]
    # Cut off behind the ears, where a parabola would fall for ever.
    dome = jnp.maximum(1 - u * u - v * v, -0.3)
    rise = jnp.clip((y - 42) / (face.nose_y - 42), 0, 1)
    fall = jnp.clip((face.nose_y + 6 - y) / 7, 0, 1)
    across = x / (face.nose_bridge + (face.nose_width - face.nose_bridge) * rise * rise)
    ridge = 1 / (1 + across * across)
    nose = rise * rise * fall * fall * (3 - 2 * fall) * ridge * ridge
    return _DOME_HEIGHT * dome + face.nose_height * nose


def dome_slopes(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Slopes of the dome alone along x and y."""
    u, v = x / _DOME[0], (y - _DOME_Y) / _DOME[1]
    inside = 2 * _DOME_HEIGHT * (u * u + v * v < 1.3)
    return -inside * u / _DOME[0], -inside * v / _DOME[1]


def relief_slopes(
    face: Identity, x: jax.Array, y: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Slopes along x and y of what shading sees besides `depth`.

    The relief is a sum of bumps, the same on both sides: sockets, bags, cheekbones,
    wings of the nose, the hollow below the lip, the lip, the chin, the philtrum.
    """
    lower = face.mouth_y + face.mouth_bow + 0.75 * face.mouth_open + face.lip_lower
    hills = (  # height, middle, half widths along x and y
        (-5.0, face.eye_x - 2, face.eye_y - 3.5, 9, 6.5),
        (1.2 * face.eye_bags, face.eye_x - 1, face.eye_y + 7, 7, 2.5),
        (3.5, 25, face.nose_y - 3, 11, 10),
        (3.0, face.nose_width - 1.5, face.nose_y + 1.5, 2.6, 3),
        (-1.6, 0, lower + 2.5, 9, 3),
        (1.5, 0, lower - 2.5, 10, 2.5),
        (2.5, 0, face.chin_y - 7, 9, 6),
        (-0.8, 0, face.nose_y + 11, 1.8, 4),
    )
    ax = jnp.abs(x)
    across = down = 0.0
    for height, middle_x, middle_y, width_x, width_y in hills:
        u, v = (ax - middle_x) / width_x, (y - middle_y) / width_y
        part = 1 / (1 + u * u + v * v)
        steep = -4 * height * part * part * part  # of a bump, over u and v
        across, down = across + steep / width_x * u, down + steep / width_y * v
    return jnp.sign(x) * across, down
