"""Frames of a walking person: silhouettes, joints, and what a camera does to them.

Everything depends on (seed, identity, sequence, frame) alone.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kprpe_jax.data.synthetic.identity import person_key, to_normal, to_uniform
from kprpe_jax.data.synthetic.walker import Walker, pose, sample_walker

_MARGIN = 0.04  # of the frame's height, above and below a person who fills it


class WalkSeverity(NamedTuple):
    """How strong each kind of nuisance is: 0 = off, 1 = ordinary, 2 = hard.

    Numbers or float32 scalars; changing them recompiles nothing.
    """

    view: float = 1.0
    scale: float = 1.0
    shift: float = 1.0
    occlusion: float = 1.0
    missing: float = 1.0
    habit: float = 1.0  # how a person's gait differs from one sequence to the next


class Walk(NamedTuple):
    """What is the same in all frames of a sequence, float32 scalars.

    Attributes:
      azimuth: radians; 0 = seen from the right side, walking to the image's right;
        pi / 2 = from behind.
      elevation: radians, of the camera above the person.
      phase: of frame 0.
      pole_start, pole_speed, pole_width: something upright in front of the person,
        fractions of the width; a width of 0 is none.
      wall: what is hidden from below, share of the height.
      missing: probability that a frame is missing.
    """

    azimuth: jax.Array
    elevation: jax.Array
    phase: jax.Array
    pole_start: jax.Array
    pole_speed: jax.Array
    pole_width: jax.Array
    wall: jax.Array
    missing: jax.Array


class WalkFrames(NamedTuple):
    """Frames of a sequence.

    Attributes:
      silhouettes: uint8 [T, H, W], 0..255.
      keypoints: float32 [T, 17, 2], COCO's joints, fractions of width and height.
      joint_mask: bool [T, 17], False = hidden.
      kept: bool [T], False = the frame is missing, whatever it shows.
    """

    silhouettes: jax.Array
    keypoints: jax.Array
    joint_mask: jax.Array
    kept: jax.Array


def render_walk(
    seed: int | jax.Array,
    identity: int | jax.Array,
    sequence: int | jax.Array,
    *,
    num_frames: int,
    size: tuple[int, int] = (64, 44),
    severity: WalkSeverity = WalkSeverity(),  # noqa: B008 (a tuple of numbers)
) -> WalkFrames:
    """Render one sequence of one person.

    At severity 1 the camera stands up to 60 degrees away from the side view, on either
    side, and up to 15 degrees above; the person is a tenth larger or smaller than the
    frame (one standard deviation 4 %) and 2 % beside its middle, each frame a little
    differently, as boxes of a detector are; in a third of the sequences a pole or a
    wall hides a part; a tenth of the frames are missing.

    Args:
      seed: of all people.
      identity: number of the person.
      sequence: number of the sequence, 0 .. 2**22.
      num_frames: T, from which the missing ones are not yet taken.
      size: (H, W).
      severity: of the nuisances.
    Returns: see `WalkFrames`.
    """
    key = jax.random.fold_in(person_key(seed, identity), sequence + 1)
    walk_key, habit_key, frame_key = jax.random.split(key, 3)
    walk = _sample_nuisances(walk_key, severity)
    walker = _with_habit(sample_walker(seed, identity), habit_key, severity.habit)

    def one(frame: jax.Array) -> WalkFrames:
        return _render_frame(
            walker, walk, frame, jax.random.fold_in(frame_key, frame), size, severity
        )

    return jax.vmap(one)(jnp.arange(num_frames))


def _sample_nuisances(key: jax.Array, severity: WalkSeverity) -> Walk:
    u = to_uniform(jax.random.bits(key, (10,)))
    turned = jnp.where(u[0] < 0.5, 0.0, jnp.pi)  # walks to the right or to the left
    hidden = u[3] < severity.occlusion / 3
    pole = hidden & (u[4] < 0.5)
    return Walk(
        azimuth=turned + severity.view * jnp.pi / 3 * (2 * u[1] - 1),
        elevation=severity.view * jnp.pi / 12 * u[2],
        phase=2 * jnp.pi * u[5],
        pole_start=u[6],
        pole_speed=0.06 * (2 * u[7] - 1),
        pole_width=jnp.where(pole, 0.12 + 0.18 * u[8], 0.0),
        wall=jnp.where(hidden & ~pole, 0.1 + 0.3 * u[9], 0.0),
        missing=0.1 * severity.missing * jnp.ones(()),
    )


def _with_habit(walker: Walker, key: jax.Array, strength: jax.Array | float) -> Walker:
    """Pace, stride and arm swing of this day: within 10 % of the person's own."""
    normal = to_normal(jax.random.bits(key, (4,)))
    factor = 1 + 0.04 * strength * normal
    return walker._replace(
        stride=walker.stride * factor[0],
        arm_swing=walker.arm_swing * factor[1],
        pace=walker.pace * factor[2],
        lean=walker.lean + 0.02 * strength * normal[3],
    )


def _render_frame(
    walker: Walker,
    walk: Walk,
    frame: jax.Array,
    key: jax.Array,
    size: tuple[int, int],
    severity: WalkSeverity,
) -> WalkFrames:
    bits = jax.random.bits(key, (4,))
    jitter, chance = to_normal(bits[:3]), to_uniform(bits[3])
    body = pose(walker, walk.phase + walker.pace * frame)
    starts, ends, joints = (
        _project(points, walk) for points in (body.starts, body.ends, body.joints)
    )
    height, width = size
    # Unit: the frame's height, as a detector's box gives it.
    top = jnp.maximum(
        (starts[:, 1] + body.start_radii).max(), (ends[:, 1] + body.end_radii).max()
    )
    bottom = jnp.minimum(
        (starts[:, 1] - body.start_radii).min(), (ends[:, 1] - body.end_radii).min()
    )
    zoom = (1 - 2 * _MARGIN) / (top - bottom)
    zoom = zoom * (1 + 0.04 * severity.scale * jitter[0])
    shift = 0.02 * severity.shift * jitter[1:]
    middle = jnp.stack([0.0, (top + bottom) / 2])

    def place(points: jax.Array) -> jax.Array:
        """To pixels; y downwards."""
        flipped = (points - middle) * zoom * jnp.array([1.0, -1.0])
        return height * (flipped + shift) + jnp.array([width, height]) / 2

    zoom_px = zoom * height
    outline = _outline(
        place(starts),
        place(ends),
        zoom_px * body.start_radii,
        zoom_px * body.end_radii,
        size,
    )
    keypoints = place(joints) / np.array([width, height], np.float32)
    at = (walk.pole_start + walk.pole_speed * frame) % 1.3 - 0.15
    x, y = (np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height

    def hidden(x: jax.Array, y: jax.Array) -> jax.Array:
        return (jnp.abs(x - at) < walk.pole_width / 2) | (y > 1 - walk.wall)

    seen = ~hidden(x[None], y[:, None])
    return WalkFrames(
        jnp.round(255 * outline * seen).astype(jnp.uint8),
        keypoints,
        ~hidden(keypoints[:, 0], keypoints[:, 1]),
        chance >= walk.missing,
    )


def _project(points: jax.Array, walk: Walk) -> jax.Array:
    """Parallel projection: [N, 3] to [N, 2], y upwards."""
    x, y, z = points.T
    cos, sin = jnp.cos(walk.azimuth), jnp.sin(walk.azimuth)
    across, depth = x * cos + z * sin, z * cos - x * sin
    up = y * jnp.cos(walk.elevation) + depth * jnp.sin(walk.elevation)
    return jnp.stack([across, up], axis=-1)


def _outline(
    starts: jax.Array,
    ends: jax.Array,
    start_radii: jax.Array,
    end_radii: jax.Array,
    size: tuple[int, int],
) -> jax.Array:
    """Coverage 0..1 [H, W] of the union of round cones [parts], in pixels."""
    y, x = np.indices(size) + 0.5
    grid = np.stack([x, y], -1).astype(np.float32)[:, :, None]  # [H, W, 1, 2]
    axis = ends - starts
    length = jnp.maximum(jnp.square(axis).sum(-1), 1e-6)
    share = jnp.clip(((grid - starts) * axis).sum(-1) / length, 0, 1)
    offset = grid - starts - share[..., None] * axis
    distance = jnp.sqrt(jnp.square(offset).sum(-1))
    radius = start_radii + share * (end_radii - start_radii)
    return jnp.clip(0.5 - (distance - radius).min(-1), 0, 1)
