"""The parts of a face and what may cover them, each as layers of paint."""

import jax
import jax.numpy as jnp

from kprpe_jax.data.synthetic import anatomy
from kprpe_jax.data.synthetic.canvas import Paint, View, cover
from kprpe_jax.data.synthetic.identity import Identity
from kprpe_jax.data.synthetic.landmarks import IRIS_Y
from kprpe_jax.data.synthetic.nuisance import Shot
from kprpe_jax.data.synthetic.palette import Palette


def shadows(face: Identity, view: View) -> jax.Array:
    """Light that is left in the folds beside the mouth and below the nose, [S, S]."""
    top = face.nose_y + 1
    s = jnp.clip((view.y - top) / (face.mouth_y - top), 0, 1)
    middle = face.nose_width + 2 + s * (face.mouth_width + 3 - face.nose_width)
    fold = jnp.clip(1 - jnp.abs(view.ax - middle) / 2.5, 0, 1) * 4 * s * (1 - s)
    fold = 0.18 * jnp.clip(face.folds, 0, 1) * fold
    below = anatomy.bump(view.x / face.nose_width, (view.y - face.nose_y - 6.5) / 1.8)
    return (1 - fold) * (1 - 0.3 * below)


def nose(face: Identity, colors: Palette, view: View) -> list[Paint]:
    """Render the nostrils."""
    across = (view.ax - 0.48 * face.nose_width) / (0.27 * face.nose_width)
    down = (view.y - face.nose_y - 4.2 + 0.6 * across) / 1.3
    distance = (jnp.sqrt(across * across + down * down) - 1) * 1.5
    dark = colors.skin * jnp.array([0.3, 0.2, 0.2])
    return [Paint(dark, 0.85 * cover(view, distance, soft=0.5))]


def mouth(face: Identity, colors: Palette, view: View) -> list[Paint]:
    """Render lips, and between them teeth and darkness when they are open."""
    q = view.x / face.mouth_width
    top, upper, lower, bottom = anatomy.lips(face, q)
    within = cover(view, view.ax - face.mouth_width)
    lips = cover(view, jnp.maximum(top - view.y, view.y - bottom), soft=0.6) * within
    # The upper lip turns away from the light, the lower one toward it.
    tone = jnp.where(view.y < (upper + lower) / 2, 0.84, 1.04) * view.shade
    cavity = jnp.maximum(upper - view.y, view.y - lower)
    cavity = cover(view, cavity - 0.25, soft=0.3) * within
    parted = jnp.clip(face.mouth_open / 3 - 0.3, 0, 1)
    edge = upper + 0.4 * face.mouth_open * (1 - q * q)
    teeth = cover(view, view.y - edge) * cover(view, view.ax - 0.75 * face.mouth_width)
    return [
        Paint(colors.lips, 0.9 * lips, tone),
        Paint(jnp.array([0.22, 0.07, 0.07]), 0.9 * cavity),
        Paint(jnp.array([0.93, 0.9, 0.85]), parted * teeth * cavity),
    ]


def eyes(face: Identity, shot: Shot, colors: Palette, view: View) -> list[Paint]:
    """Render both eyes: white, iris, pupil, highlight, lids and lashes."""
    x, y = view.ax - face.eye_x, view.y
    q = x / face.eye_width
    upper, lower = anatomy.lids(face, q)
    within = cover(view, jnp.abs(x) - face.eye_width)
    opening = cover(view, jnp.maximum(upper - y, y - lower)) * within
    below_lid = jnp.clip((y - upper) / 2.5, 0, 1)  # the lid throws a shadow

    down = y - face.eye_y - IRIS_Y
    radius = jnp.sqrt(x * x + down * down)
    ring = 1 - 0.45 * jnp.clip(radius - face.iris + 1.2, 0, 1)
    pupil = opening * cover(view, radius - 0.42 * face.iris)
    # Seen in both eyes on the same side: x is mirrored, the light is not.
    spot_x = x - 2.2 * jnp.clip(shot.light_x, -0.6, 0.6) * jnp.sign(view.x)
    spot_y = down + 0.28 * face.iris
    spot = cover(view, jnp.sqrt(spot_x * spot_x + spot_y * spot_y) - 0.75)

    lash = jnp.abs(y - upper) - 0.55 - 0.25 * q
    lash = cover(view, lash, soft=0.3) * cover(view, jnp.abs(x) - face.eye_width - 0.5)
    crease = cover(view, jnp.abs(y - upper + face.crease) - 0.25, soft=0.4) * within
    under = cover(view, jnp.abs(y - lower) - 0.2) * within
    white = (0.6 + 0.4 * view.shade) * (0.7 + 0.3 * below_lid)
    return [
        Paint(jnp.array([0.93, 0.90, 0.88]), opening, white),
        Paint(
            colors.iris,
            opening * cover(view, radius - face.iris),
            ring * (0.6 + 0.4 * below_lid),
        ),
        Paint(jnp.array([0.03, 0.02, 0.02]), pupil),
        Paint(jnp.ones(3), 0.9 * opening * spot),
        Paint(colors.skin * 0.5, 0.5 * jnp.maximum(crease, under)),
        Paint(colors.brows * 0.35, 0.85 * lash),
    ]


def brows(face: Identity, colors: Palette, view: View) -> list[Paint]:
    """Render the brows."""
    x = view.ax - face.eye_x
    middle, thick = anatomy.brow(face, x / face.brow_width)
    within = cover(view, jnp.abs(x) - face.brow_width, soft=1.5)
    hair = cover(view, jnp.abs(view.y - middle) - thick, soft=1.2) * within
    return [Paint(colors.brows, 0.85 * hair, view.shade)]


def mask(face: Identity, shot: Shot, view: View, outline: jax.Array) -> list[Paint]:
    """Cover nose, mouth and chin with a mask.

    Args:
      face, shot, view: as everywhere.
      outline: [S, S], distance to the outline of the head.
    """
    q = view.ax / face.face_width
    top = face.nose_y - 9 + 8 * q * q
    cloth = jnp.maximum(top - view.y, outline - 1.5)
    black, blue, white = (
        jnp.array(c) for c in ((0.1, 0.1, 0.11), (0.45, 0.68, 0.8), (0.92, 0.92, 0.9))
    )
    tone = jnp.clip(2 * shot.mask_tone, 0, 2)
    color = jnp.where(tone < 1, black + tone * (blue - black), 0)
    color = jnp.where(tone < 1, color, blue + (tone - 1) * (white - blue))
    pleats = 1 - 0.1 * jnp.abs(jnp.mod(0.12 * (view.y - top), 2) - 1)
    fabric = pleats * (0.35 + 0.65 * view.shade)
    return [Paint(color, shot.mask * cover(view, cloth), fabric)]


def sunglasses(face: Identity, shot: Shot, view: View) -> list[Paint]:
    """Cover the eyes with sunglasses."""
    x, y = view.ax - face.eye_x, view.y - face.eye_y - 1
    width, height = 13 + 1.5 * shot.glasses_size, 10 + 1.5 * shot.glasses_size
    u, v = jnp.square(x / width), jnp.square(y / height)
    lens = (jnp.sqrt(jnp.sqrt(u * u + v * v)) - 1) * height
    bridge = jnp.maximum(jnp.abs(y + 3) - 1.2, x)
    arm = jnp.maximum(jnp.abs(y + 4) - 1.2, view.ax - face.face_width - 3)
    shape = jnp.minimum(lens, jnp.minimum(bridge, jnp.maximum(arm, -x)))
    alpha = 0.97 * shot.sunglasses * cover(view, shape)
    return [Paint(jnp.array([0.07, 0.07, 0.08]), alpha, 1.2 - y / 12)]
