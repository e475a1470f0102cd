"""Render a face: layers from the back of the head to glasses, each a soft-edged shape.

Every layer is a formula of the pixel's place on the face, so an image of any size and
pose is rendered directly, without a texture or a warp.
"""

import functools

import jax
import jax.numpy as jnp

from kprpe_jax.data.synthetic import anatomy, features
from kprpe_jax.data.synthetic.canvas import (
    Paint,
    View,
    byte,
    cover,
    flatten,
    hash_bits,
    wave,
)
from kprpe_jax.data.synthetic.identity import Identity
from kprpe_jax.data.synthetic.nuisance import Shot
from kprpe_jax.data.synthetic.palette import Palette, make_palette
from kprpe_jax.data.synthetic.pose import Pose, to_face


def render_face(pose: Pose, shot: Shot, *, size: int) -> jax.Array:
    """Render one face.

    Args:
      pose: of the face, which it holds with its expression.
      shot: light, occluders and background.
      size: S, side of the image in pixels.
    Returns: int32 [S, S], packed (`canvas.unpack`), without blur, noise and crop.
    """
    face = pose.face
    colors = make_palette(face)
    place = (jnp.arange(size) + 0.5) * (112 / size)
    frame_x, frame_y = jnp.meshgrid(place, place)
    view = _look(pose, shot, frame_x, frame_y)
    view = view._replace(shade=view.shade * features.shadows(face, view))
    tone = _hair_tone(face, shot, view)
    outline = anatomy.head_distance(face, view.x, view.y)
    above = cover(view, view.y - anatomy.hairline(face, view.x), soft=2.5)
    head = cover(view, outline)
    # A little beyond the head, so that no seam shows against the hair behind it.
    hair = above * cover(view, outline - 1)

    layers = [
        _background(shot, frame_x, frame_y),
        *_behind(face, shot, colors, view, tone),
        *_skin(face, colors, view, head),
        *features.nose(face, colors, view),
        *features.mouth(face, colors, view),
        *features.eyes(face, shot, colors, view),
        *features.brows(face, colors, view),
        Paint(colors.hair, hair, tone),
        *features.mask(face, shot, view, outline),
        *features.sunglasses(face, shot, view),
    ]
    exposure = jnp.exp(shot.gain + shot.warmth * jnp.array([1.0, 0.0, -1.0]))
    return flatten([layer._replace(color=layer.color * exposure) for layer in layers])


def _look(pose: Pose, shot: Shot, frame_x: jax.Array, frame_y: jax.Array) -> View:
    """Find the points of the face that the pixels show, and their shading."""
    x, y = to_face(pose, frame_x, frame_y)

    one, zero = jnp.ones_like(x), jnp.zeros_like(x)
    depth = functools.partial(anatomy.depth, pose.face)
    slope_x, slope_y = anatomy.relief_slopes(pose.face, x, y)
    slope_x += jax.jvp(depth, (x, y), (one, zero))[1]
    slope_y += jax.jvp(depth, (x, y), (zero, one))[1]

    # The light stays where it is while the head turns.
    m = pose.linear
    scale = jnp.sqrt(m[0, 0] * m[1, 1] - m[0, 1] * m[1, 0])
    light_x = (m[0, 0] * shot.light_x + m[1, 0] * shot.light_y) / scale - shot.yaw
    light_y = (m[0, 1] * shot.light_x + m[1, 1] * shot.light_y) / scale - shot.pitch
    toward = 1 - slope_x * light_x - slope_y * light_y
    length = (1 + slope_x**2 + slope_y**2) * (1 + light_x**2 + light_y**2)
    lit = jnp.maximum(toward, 0) * jax.lax.rsqrt(length)
    # Frontal light on a flat place gives about 1, whatever the contrast.
    shade = 1 - shot.contrast + shot.contrast * lit * 1.12
    # A little gloss where skin faces the light.
    gloss = jnp.square(jnp.square(jnp.square(lit)))
    pixel = (frame_x[0, 1] - frame_x[0, 0]) / scale
    return View(x, y, jnp.abs(x), pixel, shade * (1 + 0.12 * gloss))


def _background(shot: Shot, frame_x: jax.Array, frame_y: jax.Array) -> Paint:
    across, down = frame_x / 56 - 1, frame_y / 56 - 1
    light = shot.background_light + 0.2 * shot.background_slope * (across + 0.5 * down)
    tint = 1 + 0.25 * shot.background_hue * jnp.array([1.0, 0.0, -1.0])
    return Paint(tint, 1.0, light)


def _hair_tone(face: Identity, shot: Shot, view: View) -> jax.Array:
    """Brightness of hair: strands, and light from one side."""
    phase = (face.texture & 0xFF).astype(jnp.float32)
    bend = view.x + 0.012 * view.y * view.x
    strands = wave(0.45 * bend + phase) * wave(0.72 * bend + 0.03 * view.y)
    lit = shot.light_x * view.x / 40 + shot.light_y * (view.y - 35) / 40
    return 1 + face.hair_streak * strands + 0.5 * jnp.clip(lit, -0.6, 1.0)


def _behind(
    face: Identity, shot: Shot, colors: Palette, view: View, tone: jax.Array
) -> list[Paint]:
    """Render hair behind the head, neck, clothes and ears."""
    width = face.face_width + 0.7 * face.hair_volume
    above = jnp.minimum(view.y - 45, 0) / (45 - face.skull_y + face.hair_volume)
    hair = (jnp.sqrt(jnp.square(view.x / width) + above * above) - 1) * width
    # The ends of the hair are round, not cut off.
    ends = view.y - face.hair_length + 0.004 * jnp.square(view.x)
    hair = cover(view, jnp.maximum(hair, ends), soft=2.0)

    # The neck starts where the jaw still hides it.
    neck = jnp.maximum(view.ax - face.neck_width, face.mouth_y - 5 - view.y)
    shadow = 0.55 + 0.2 * jnp.clip((view.y - face.chin_y - 4) / 25, 0, 1)
    collar = face.chin_y + 17 + view.x * view.x / 260
    shoulders = jnp.maximum(collar - view.y, view.ax - 80)

    bare = jnp.clip(6.5 - face.hair_length / 10, 0, 1)  # long hair hides the ears
    across = (view.ax - face.face_width - 1) / (0.42 * face.ear_size)
    down = (view.y - 58 - 0.15 * face.ear_size) / face.ear_size
    ear = (jnp.sqrt(across * across + down * down) - 1) * 5
    hollow = 0.8 + 0.03 * jnp.clip(ear, -4, 0)
    return [
        Paint(colors.hair * 0.9, hair, tone),
        Paint(colors.skin, cover(view, neck), shadow),
        Paint(shot.clothes * jnp.array([0.8, 0.9, 1.2]), cover(view, shoulders)),
        Paint(colors.skin, bare * cover(view, ear), hollow * view.shade),
    ]


def _skin(face: Identity, colors: Palette, view: View, head: jax.Array) -> list[Paint]:
    """Color the skin: blush, freckles, moles, a scar, a beard."""
    cheek = anatomy.bump((view.ax - 23) / 8, (view.y - face.nose_y) / 8)
    blush = jnp.clip(0.8 * face.blush, 0, 1) * cheek

    spots = _freckles(face, view) * jnp.clip(2.5 * cheek, 0, 1)
    for x, y, radius in (
        (face.mole_1_x, face.mole_1_y, face.mole_1),
        (face.mole_2_x, face.mole_2_y, face.mole_2),
    ):
        distance = jnp.sqrt(jnp.square(view.x - x) + jnp.square(view.y - y))
        mole = cover(view, distance - 0.8 - radius) * (radius > 0)
        spots = jnp.maximum(spots, mole)

    along = view.x - face.scar_x
    across = jnp.abs(view.y - face.scar_y - face.scar_slope * along) - 0.5
    scar = jnp.clip(face.scar, 0, 1) * cover(
        view, jnp.maximum(across, jnp.abs(along) - 6)
    )

    # A full beard up to the sideburns, and a moustache round the mouth.
    q2 = jnp.square(view.x / face.face_width)
    chin = jnp.clip((view.y - 100 + 48 * q2 * q2) / 8, 0, 1)
    u = view.x / (face.mouth_width + 6)
    v = (view.y - face.mouth_y) / (face.mouth_y - face.nose_y - 5)
    lip = jnp.clip(2.2 - 2 * (u * u + v * v), 0, 1)
    beard = jnp.clip(1.6 * face.beard, 0, 0.85) * jnp.maximum(chin, lip)
    return [
        Paint(colors.skin, head, view.shade),
        Paint(colors.skin * jnp.array([1.0, 0.72, 0.68]), blush, view.shade),
        Paint(colors.skin * jnp.array([0.62, 0.48, 0.42]), spots * head, view.shade),
        Paint(jnp.minimum(colors.skin * 1.2 + 0.08, 1), scar * head, view.shade),
        Paint(colors.brows, beard * head, view.shade),
    ]


def _freckles(face: Identity, view: View) -> jax.Array:
    """Dots in some cells of a grid, each within its cell."""
    cell = 3.0  # pixels
    column, row = jnp.floor(view.x / cell), jnp.floor(view.y / cell)
    bits = hash_bits(column.astype(jnp.int32), row.astype(jnp.int32), face.texture)
    x = view.x / cell - column - 0.3 - 0.4 * byte(bits, 0)
    y = view.y / cell - row - 0.3 - 0.4 * byte(bits, 1)
    dot = jnp.clip(1.6 - 20 * (x * x + y * y), 0, 1)
    return 0.7 * dot * (byte(bits, 2) < 3 * face.freckles)
