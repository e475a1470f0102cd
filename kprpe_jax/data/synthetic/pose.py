"""From the face to the image and back: out-of-plane turn, then a similarity.

The face is a shallow relief, `anatomy.depth`. A turn shifts its points by parallax; it
does not hide any, so it holds for mild angles, up to about 30 degrees.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from kprpe_jax.data.synthetic import anatomy
from kprpe_jax.data.synthetic.identity import Identity
from kprpe_jax.data.synthetic.landmarks import KEYPOINTS, landmarks
from kprpe_jax.data.synthetic.nuisance import Shot
from kprpe_jax.geometry.point_fits import fit_similarity
from kprpe_jax.geometry.template import ARCFACE_112

_CENTER = (56.0, 62.0)  # of the head, in the frame: turns and scalings keep it there
_AXIS_DEPTH = 15.0  # the axis of turns lies this far behind the foremost point's plane
_NEWTON_STEPS = 3


class Pose(NamedTuple):
    """Map from face coordinates to the frame of 112 x 112.

    face: its own depth takes part; expression included.
    linear: float32 [2, 3], from turned face coordinates to the frame.
    yaw, pitch: float32 scalars, radians.
    """

    face: Identity
    linear: jax.Array
    yaw: jax.Array
    pitch: jax.Array


def make_pose(neutral: Identity, face: Identity, shot: Shot) -> Pose:
    """Combine a person's alignment with the pose of a shot.

    Alignment is the similarity that brings the five keypoints of the neutral, frontal
    face to the template: faces differ in what a similarity cannot remove.

    Args:
      neutral: the person, scalars.
      face: the same with its expression.
      shot: the pose.
    """
    points = landmarks(neutral)[KEYPOINTS]
    aligned = fit_similarity(points, jnp.asarray(ARCFACE_112))
    a = shot.scale * jnp.cos(shot.rotation)
    b = shot.scale * jnp.sin(shot.rotation)
    place = jnp.array([[a, -b], [b, a]])
    center = jnp.array(_CENTER)
    shift = 112 * jnp.stack([shot.shift_x, shot.shift_y])
    linear = _times(place, aligned[:, :2])
    offset = (place * (aligned[:, 2] - center)).sum(-1) + center + shift
    matrix = jnp.concatenate([linear, offset[:, None]], -1)
    return Pose(face, matrix, jnp.asarray(shot.yaw), jnp.asarray(shot.pitch))


def to_frame(pose: Pose, points: jax.Array) -> jax.Array:
    """Bring points of the face into the image.

    Args:
      pose: of one image.
      points: [..., 2], face coordinates.
    Returns: float32 [..., 2], pixel-edge coordinates of the 112 x 112 frame.
    """
    x, y = _turn(pose, points[..., 0], points[..., 1])
    m = pose.linear
    return jnp.stack(
        [
            m[0, 0] * x + m[0, 1] * y + m[0, 2],
            m[1, 0] * x + m[1, 1] * y + m[1, 2],
        ],
        -1,
    )


def to_face(pose: Pose, x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Find the point of the face at a place in the image: the inverse of `to_frame`.

    Newton's method on the dome, whose slopes are known; the nose follows as it may.

    Args:
      pose: of one image.
      x, y: float32 [...], pixel-edge coordinates of the 112 x 112 frame.
    Returns: x and y in face coordinates, [...].
    """
    m = pose.linear
    scale = m[0, 0] * m[1, 1] - m[0, 1] * m[1, 0]
    x, y = x - m[0, 2], y - m[1, 2]
    x, y = (m[1, 1] * x - m[0, 1] * y) / scale, (m[0, 0] * y - m[1, 0] * x) / scale
    face_x, face_y = x, y
    for _ in range(_NEWTON_STEPS):
        turned_x, turned_y = _turn(pose, face_x, face_y)
        slope_x, slope_y = anatomy.dome_slopes(face_x, face_y)
        step_x = jnp.cos(pose.yaw) + jnp.sin(pose.yaw) * slope_x
        step_y = jnp.cos(pose.pitch) + jnp.sin(pose.pitch) * slope_y
        face_x = face_x + (x - turned_x) / jnp.maximum(step_x, 0.4)
        face_y = face_y + (y - turned_y) / jnp.maximum(step_y, 0.4)
    return face_x, face_y


def _turn(pose: Pose, x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Turn by yaw and pitch and look from the front."""
    height = anatomy.depth(pose.face, x, y) - _AXIS_DEPTH
    across = x * jnp.cos(pose.yaw) + height * jnp.sin(pose.yaw)
    down = y - _CENTER[1]
    down = down * jnp.cos(pose.pitch) + height * jnp.sin(pose.pitch)
    return across, down + _CENTER[1]


def _times(a: jax.Array, b: jax.Array) -> jax.Array:
    # Written out: at full precision on every device, where a matmul may not be.
    return (a[:, :, None] * b[None]).sum(1)
