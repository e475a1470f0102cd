"""A walking person as numbers: limb lengths, girth, gait, and the skeleton they move.

Lengths are fractions of the body's height, angles are radians. The skeleton stands in
its own frame: x points where the person walks, y up, z to the person's right; the
middle of the hips is the origin.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kprpe_jax.data.synthetic.identity import person_key, to_normal

# The order of COCO; left and right are the person's own.
JOINTS = (
    *("nose", "left_eye", "right_eye", "left_ear", "right_ear"),
    *("left_shoulder", "right_shoulder", "left_elbow", "right_elbow"),
    *("left_wrist", "right_wrist", "left_hip", "right_hip"),
    *("left_knee", "right_knee", "left_ankle", "right_ankle"),
)


class Walker(NamedTuple):
    """Parameters of a person [...]; the defaults are the average person."""

    torso: jax.Array | float = 0.29  # hips to shoulders
    neck: jax.Array | float = 0.10  # shoulders to the middle of the head
    head: jax.Array | float = 0.058  # radius
    hair: jax.Array | float = 0.01  # how far hair stands out
    shoulder: jax.Array | float = 0.11  # half width
    hip: jax.Array | float = 0.055  # half width
    upper_arm: jax.Array | float = 0.165
    forearm: jax.Array | float = 0.15
    thigh: jax.Array | float = 0.245
    shin: jax.Array | float = 0.24
    foot: jax.Array | float = 0.10
    chest_girth: jax.Array | float = 0.070  # radii
    belly_girth: jax.Array | float = 0.065
    hip_girth: jax.Array | float = 0.072
    thigh_girth: jax.Array | float = 0.050
    shin_girth: jax.Array | float = 0.032
    arm_girth: jax.Array | float = 0.028
    stride: jax.Array | float = 0.42  # swing of the thighs
    hip_forward: jax.Array | float = 0.06  # middle of that swing
    knee_swing: jax.Array | float = 0.95  # bend while the leg swings
    knee_stance: jax.Array | float = 0.12
    arm_swing: jax.Array | float = 0.38
    arm_forward: jax.Array | float = 0.0
    arm_spread: jax.Array | float = 0.10
    elbow_bend: jax.Array | float = 0.30
    elbow_swing: jax.Array | float = 0.25
    lean: jax.Array | float = 0.04  # of the torso, forward
    nod: jax.Array | float = 0.05  # of the head, forward
    twist: jax.Array | float = 0.12  # of shoulders against hips
    sway: jax.Array | float = 0.03  # of the torso, sideways
    spread: jax.Array | float = 0.03  # of the legs
    toes_out: jax.Array | float = 0.12
    pace: jax.Array | float = 0.26  # phase of the gait per frame


# Standard deviations, in the order of the fields.
SPREAD = Walker(
    *(0.022, 0.010, 0.005, 0.010, 0.012, 0.007),
    *(0.012, 0.012, 0.016, 0.016, 0.010),
    *(0.012, 0.018, 0.013, 0.009, 0.006, 0.006),
    *(0.09, 0.05, 0.16, 0.06, 0.14, 0.10, 0.05, 0.18, 0.12),
    *(0.06, 0.09, 0.06, 0.02, 0.02, 0.08, 0.03),
)


class Body(NamedTuple):
    """A skeleton with flesh.

    Attributes:
      joints: float32 [17, 3], in the order of JOINTS.
      starts, ends: float32 [parts, 3], the axis of each part.
      start_radii, end_radii: float32 [parts], its radius at both ends.
    """

    joints: jax.Array
    starts: jax.Array
    ends: jax.Array
    start_radii: jax.Array
    end_radii: jax.Array


def sample_walker(seed: int | jax.Array, identity: int | jax.Array) -> Walker:
    """Sample the parameters of a person; the same for the same numbers, anywhere.

    Every parameter is normal around the average person, cut at 2.2 standard deviations.

    Args:
      seed: of the data set.
      identity: int32 scalar, the person's number.
    Returns: parameters, float32 scalars.
    """
    key = jax.random.fold_in(person_key(seed, identity), 0)
    normal = to_normal(jax.random.bits(key, (len(SPREAD),)))
    return Walker(*(np.float32(Walker()) + np.float32(SPREAD) * normal))


def pose(walker: Walker, phase: jax.Array) -> Body:
    """The body at one moment of the gait.

    Thighs swing as cosines, half a period apart; a knee bends while its leg swings
    forward; each arm swings with the other leg.

    Args:
      walker: parameters, scalars.
      phase: float32 scalar; at 0 the left leg is in front, 2 pi is two steps.
    Returns: see `Body`.
    """
    w = walker
    upright = _direction(w.lean, w.sway * jnp.sin(phase))
    hips_turn = -0.5 * w.twist * jnp.cos(phase)
    hips = [_across(side * w.hip, hips_turn) for side in (-1, 1)]
    chest = w.torso * upright
    shoulders = [
        chest + _across(side * w.shoulder, w.twist * jnp.cos(phase)) for side in (-1, 1)
    ]
    knees, ankles, toes, heels, elbows, wrists, hands = ([] for _ in range(7))
    for index, side in enumerate((-1, 1)):  # left, right
        own = phase + index * jnp.pi
        thigh = w.hip_forward + w.stride * jnp.cos(own)
        bend = w.knee_stance + w.knee_swing * _pulse(own - 1.45 * jnp.pi)
        outward = side * w.spread
        knees.append(hips[index] - w.thigh * _direction(-thigh, -outward))
        ankles.append(knees[index] - w.shin * _direction(bend - thigh, -outward))
        # The foot stands at a right angle to the shin, flatter where that would dig in.
        flat = 0.7 * (thigh - bend)
        along = jnp.stack(
            [
                jnp.cos(flat) * jnp.cos(w.toes_out),
                jnp.sin(flat),
                side * jnp.sin(w.toes_out),
            ]
        )
        sole = ankles[index] - jnp.array([0, 0.022, 0])
        heels.append(sole - 0.25 * w.foot * along)
        toes.append(sole + 0.75 * w.foot * along)
        arm = w.arm_forward - w.arm_swing * jnp.cos(own)
        elbow = w.elbow_bend + w.elbow_swing * (1 - jnp.cos(own)) / 2
        aside = side * w.arm_spread
        elbows.append(shoulders[index] - w.upper_arm * _direction(-arm, -aside))
        lower = _direction(-arm - elbow, -0.5 * aside)
        wrists.append(elbows[index] - w.forearm * lower)
        hands.append(wrists[index] - 0.05 * lower)
    forward = _direction(w.lean + w.nod, w.sway * jnp.sin(phase))
    middle = chest + w.neck * forward
    face, head_joints = _head(w, middle, forward)
    pairs = (shoulders, elbows, wrists, hips, knees, ankles)
    joints = jnp.stack([*head_joints, *(point for pair in pairs for point in pair)])
    parts = [
        (chest, middle, 0.034, 0.036),
        (middle - 0.3 * w.head * forward, middle + 0.35 * w.head * forward)
        + (0.86 * w.head, w.head),
        (face, middle, 0.5 * w.head, 0.8 * w.head),
        (middle + 0.3 * w.head * forward, middle - 0.4 * w.head * face_way(forward))
        + (w.head + w.hair, 0.8 * w.head + w.hair),
        (0.86 * chest, 0.35 * chest, w.chest_girth, w.belly_girth),
        (0.35 * chest, 0.0 * chest, w.belly_girth, w.hip_girth),
        (*shoulders, 0.9 * w.arm_girth + 0.014, 0.9 * w.arm_girth + 0.014),
        (*hips, w.hip_girth, w.hip_girth),
    ]
    for i in range(2):
        parts += [
            (shoulders[i], 0.3 * chest + 0.8 * hips[i], 0.045, 0.8 * w.belly_girth),
            (shoulders[i], elbows[i], 1.15 * w.arm_girth, 0.95 * w.arm_girth),
            (elbows[i], wrists[i], 0.95 * w.arm_girth, 0.65 * w.arm_girth),
            (wrists[i], hands[i], 0.65 * w.arm_girth, 0.022),
            (hips[i], knees[i], 1.2 * w.thigh_girth, 0.75 * w.thigh_girth),
            (knees[i], ankles[i], 0.72 * w.thigh_girth, 0.7 * w.shin_girth),
            (0.75 * knees[i] + 0.25 * ankles[i], 0.5 * knees[i] + 0.5 * ankles[i])
            + (1.15 * w.shin_girth, 1.05 * w.shin_girth),
            (heels[i], toes[i], 0.024, 0.018),
        ]
    starts, ends, start_radii, end_radii = zip(*parts, strict=True)
    radii = jnp.stack(list(map(jnp.float32, start_radii)))
    return Body(
        joints,
        jnp.stack(starts),
        jnp.stack(ends),
        radii,
        jnp.stack(list(map(jnp.float32, end_radii))),
    )


def face_way(up: jax.Array) -> jax.Array:
    """Where a head looks that stands along `up`: [3], in the plane of walking."""
    return jnp.stack([up[1], -up[0], jnp.zeros_like(up[0])])


def _head(
    w: Walker, middle: jax.Array, up: jax.Array
) -> tuple[jax.Array, list[jax.Array]]:
    """Tip of the nose for the outline; nose, eyes and ears."""
    ahead, aside = face_way(up), jnp.array([0.0, 0, 1])
    nose = middle + w.head * (0.95 * ahead - 0.15 * up)
    eyes = [
        middle + w.head * (0.8 * ahead + 0.15 * up + side * 0.4 * aside)
        for side in (-1, 1)
    ]
    ears = [middle + w.head * (side * 0.95 * aside) for side in (-1, 1)]
    return nose - 0.42 * w.head * ahead, [nose, *eyes, *ears]


def _direction(forward: jax.Array, right: jax.Array) -> jax.Array:
    """Unit vector that points up, tilted by angles forward and to the right."""
    flat = jnp.cos(right)
    return jnp.stack([jnp.sin(forward) * flat, jnp.cos(forward) * flat, jnp.sin(right)])


def _across(distance: jax.Array, turn: jax.Array) -> jax.Array:
    """A point to the right, on a line turned about the vertical axis."""
    return distance * jnp.stack([jnp.sin(turn), jnp.zeros_like(turn), jnp.cos(turn)])


def _pulse(phase: jax.Array) -> jax.Array:
    """1 at phase 0, smooth, near 0 over more than half of the period."""
    return jnp.square((1 + jnp.cos(phase)) / 2)
