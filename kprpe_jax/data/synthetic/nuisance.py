"""Nuisances of an image: pose, expression, light, degradation, occluders."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from kprpe_jax.data.synthetic.identity import to_normal, to_uniform

LAYOUTS = ("aligned", "free")


class Severity(NamedTuple):
    """How strong each kind of nuisance is: 0 = off, 1 = ordinary, 2 = hard.

    Numbers or float32 scalars; changing them recompiles nothing.
    """

    rotation: float = 1.0
    scale: float = 1.0
    shift: float = 1.0
    turn: float = 1.0  # out of plane
    expression: float = 1.0
    light: float = 1.0
    blur: float = 1.0
    noise: float = 1.0
    resolution: float = 1.0
    crop: float = 1.0
    mask: float = 1.0
    sunglasses: float = 1.0
    background: float = 1.0


class Shot(NamedTuple):
    """Nuisances of one image [...]; the defaults are a frontal, clean one."""

    rotation: jax.Array | float = 0.0  # radians, clockwise as seen
    scale: jax.Array | float = 1.0
    shift_x: jax.Array | float = 0.0  # fraction of the frame
    shift_y: jax.Array | float = 0.0
    yaw: jax.Array | float = 0.0  # radians, positive = nose toward image right
    pitch: jax.Array | float = 0.0  # radians, positive = nose downwards
    mouth_open: jax.Array | float = 0.0  # 0..1
    smile: jax.Array | float = 0.0  # -1..1
    brow_raise: jax.Array | float = 0.0  # -1..1
    eyes_closed: jax.Array | float = 0.0  # 0..1
    light_x: jax.Array | float = -0.25  # where light comes from, negative = left
    light_y: jax.Array | float = -0.35  # negative = above
    contrast: jax.Array | float = 0.5  # share of directed light
    gain: jax.Array | float = 0.0  # log of the exposure
    warmth: jax.Array | float = 0.0  # log of red against blue
    blur: jax.Array | float = 0.0  # sigma, pixels of a 112 x 112 frame
    noise: jax.Array | float = 0.0  # standard deviation, of 0..1
    resolution: jax.Array | float = 1.0  # pixels kept along a side, 0..1
    crop_x: jax.Array | float = 0.0  # share of the width lost; negative = at the left
    crop_y: jax.Array | float = 0.0  # share of the height lost; negative = at the top
    mask: jax.Array | float = 0.0  # 0 or 1
    mask_tone: jax.Array | float = 0.5  # 0 = black, 0.5 = blue, 1 = white
    sunglasses: jax.Array | float = 0.0  # 0 or 1
    glasses_size: jax.Array | float = 0.0  # -1..1
    background_light: jax.Array | float = 0.55
    background_hue: jax.Array | float = 0.0
    background_slope: jax.Array | float = 0.0
    clothes: jax.Array | float = 0.3
    grain: jax.Array | int = 0  # uint32, seed of the noise


# NmsResult through a sequence: they do not change from frame to frame.
CONSTANT = (
    *("mask", "mask_tone", "sunglasses", "glasses_size", "background_light"),
    *("background_hue", "background_slope", "clothes", "crop_x", "crop_y"),
)


def sample_shot(key: jax.Array, severity: Severity, *, layout: str = "aligned") -> Shot:
    """Sample the nuisances of an image.

    Most are normal, cut at 2.2 standard deviations; a mask, sunglasses and a crop come
    with probability 0.1 times their severity.

    Args:
      key: random key of the image.
      severity: of each kind.
      layout: "aligned" for a face near the template, "free" for one that is anywhere
        in the frame, 0.3 to 0.75 times as large, turned by up to 30 degrees whatever
        the severity.
    Returns: nuisances, float32 scalars.
    """
    bits = jax.random.bits(key, (31,))
    n, u = to_normal(bits[:16]), to_uniform(bits[16:30])
    s = severity
    center = (u[10:12] - 0.5) * 2
    if layout == "free":
        scale = jnp.exp(jnp.log(0.3) + u[12] * math.log(0.75 / 0.3))
        place = (jnp.pi / 6 * (2 * u[13] - 1), scale, *(center * 0.5 * (1 - scale)))
    else:
        place = (
            *(0.12 * s.rotation * n[0], jnp.exp(0.05 * s.scale * n[1])),
            *(0.025 * s.shift * n[2:4]),
        )
    # Half of the images are sharp and whole; the rest are spread up to the worst.
    blur, lost = (jnp.maximum(2 * u[i] - 1, 0) for i in (0, 1))
    cropped = u[2] < 0.1 * s.crop
    crop = jnp.where(cropped, 0.1 + 0.25 * jnp.abs(center), 0) * jnp.sign(center)
    return Shot(
        *place,
        yaw=jnp.clip(0.2 * s.turn * n[4], -0.6, 0.6),
        pitch=jnp.clip(0.12 * s.turn * n[5], -0.4, 0.4),
        mouth_open=jnp.clip(s.expression * (0.45 * n[6] - 0.2), 0, 1),
        smile=jnp.clip(0.45 * s.expression * n[7], -0.6, 1),
        brow_raise=jnp.clip(0.4 * s.expression * n[8], -1, 1),
        eyes_closed=jnp.clip(s.expression * jnp.abs(0.2 * n[9]), 0, 1)
        + (u[3] < 0.04 * s.expression) * (1 - jnp.clip(s.expression * 0.2, 0, 1)),
        light_x=-0.25 + s.light * 0.5 * n[10],
        light_y=-0.35 + s.light * 0.3 * n[11],
        contrast=jnp.clip(0.5 + 0.12 * s.light * n[12], 0.1, 0.95),
        gain=0.2 * s.light * n[13],
        warmth=0.1 * s.light * n[14],
        blur=2.0 * s.blur * blur,
        noise=0.05 * s.noise * jnp.abs(n[15]) / 1.5,
        resolution=1 / (1 + 3.0 * s.resolution * lost),
        crop_x=crop[0],
        crop_y=crop[1],
        mask=(u[4] < 0.1 * s.mask).astype(jnp.float32),
        mask_tone=u[5],
        sunglasses=(u[6] < 0.1 * s.sunglasses).astype(jnp.float32),
        glasses_size=2 * u[7] - 1,
        background_light=0.55 + 0.4 * s.background * (u[8] - 0.5) * 2,
        background_hue=s.background * (2 * u[9] - 1),
        background_slope=s.background * center[0],
        clothes=0.3 + 0.3 * s.background * center[1],
        grain=bits[30],
    )


def quality(shot: Shot) -> jax.Array:
    """How much of the person an image shows, 0..1; 1 for a frontal, clean one.

    The product of what each nuisance leaves, with every factor falling as that nuisance
    grows: exp(-blur / 4), exp(-6 noise), resolution^(2/3), cos(yaw)^2 cos(pitch)^2,
    exp(-gain^2), the uncropped share of the frame, 0.55 with a mask and 0.7 with
    sunglasses. In-plane pose, expression, light's direction and background are free.

    Args:
      shot: [...].
    Returns: float32 [...].
    """
    sharp = jnp.exp(-shot.blur / 4 - 6 * shot.noise - jnp.square(shot.gain))
    sharp = sharp * jnp.power(shot.resolution, 2 / 3)
    frontal = jnp.square(jnp.cos(shot.yaw) * jnp.cos(shot.pitch))
    whole = (1 - jnp.abs(shot.crop_x)) * (1 - jnp.abs(shot.crop_y))
    covered = (1 - 0.45 * shot.mask) * (1 - 0.3 * shot.sunglasses)
    return sharp * frontal * whole * covered
