"""Where the 84 landmarks of a synthetic face lie, and what they are called.

  0..16   jaw, from the left cheek over the chin (8) to the right cheek
  17..21  left brow, 22..26 right brow, each from left to right
  27..30  nose bridge down to the tip (30); 31..35 below the nose, from left to right
  36..41  left eye: outer corner, two on the upper lid, inner corner, two on the lower
  42..47  right eye: inner corner, two on the upper lid, outer corner, two on the lower
  48..59  outer edge of the lips, clockwise from the left corner (48) to the right (54)
  60..67  inner edge of the lips, in the same way
  68..80  hairline, from left to right
  81, 82  left and right iris;  83  middle of the mouth

Left is image left. The first 68 are numbered as usual (iBUG 300-W).
"""

import jax
import jax.numpy as jnp
import numpy as np

from kprpe_jax.data.synthetic import anatomy
from kprpe_jax.data.synthetic.identity import Identity

NUM_LANDMARKS = 84
# The five keypoints of the project: irises, tip of the nose, corners of the mouth.
KEYPOINTS = np.array([81, 82, 30, 48, 54])

# The landmark that each becomes in a mirrored image.
MIRROR = np.array(
    [
        *range(16, -1, -1),
        *range(26, 16, -1),
        *(27, 28, 29, 30, 35, 34, 33, 32, 31),
        *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),
        *(54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55),
        *(64, 63, 62, 61, 60, 67, 66, 65),
        *range(80, 67, -1),
        *(82, 81, 83),
    ]
)
IRIS_Y = -0.4  # of the iris from the line between the corners of the eye


def landmarks(face: Identity) -> jax.Array:
    """Landmarks of a face, its expression included, seen from the front.

    Args:
      face: scalars, from `anatomy.express`.
    Returns: float32 [84, 2], (x, y) in face coordinates.
    """
    side_x, side_y = anatomy.jaw(face, jnp.sin(jnp.linspace(0, jnp.pi / 2, 9)))
    jaw = _both_sides(_points(-side_x, side_y))

    q = jnp.linspace(1, -1, 5) * 0.95
    left_brow = _points(-face.eye_x - face.brow_width * q, anatomy.brow(face, q)[0])

    bridge = jnp.linspace(0, 1, 4) ** 0.9
    nose = _points(
        jnp.zeros(4), face.eye_y - 2 + bridge * (face.nose_y - face.eye_y + 2)
    )
    base = _points(
        face.nose_width * jnp.array([-0.9, -0.5, 0, 0.5, 0.9]),
        face.nose_y + jnp.array([3.0, 5.2, 6.0, 5.2, 3.0]),
    )

    q = jnp.array([1, 0.35, -0.35, -1, -0.35, 0.35])
    on_upper = jnp.array([True, True, True, True, False, False])
    y = jnp.where(on_upper, *anatomy.lids(face, q))
    left_eye = _points(-face.eye_x - face.eye_width * q, y)
    # Mirrored, the left eye's points run from right to left: put in the usual order.
    right_eye = _mirrored(left_eye)[jnp.array([3, 2, 1, 0, 5, 4])]

    outer = jnp.array([-1, -0.6, -0.2, 0, 0.2, 0.6, 1])
    inner = jnp.array([-0.92, -0.4, 0, 0.4, 0.92])
    top, bottom = anatomy.lips(face, outer)[0], anatomy.lips(face, outer)[3]
    outer_lip = _ring(face.mouth_width * outer, top, bottom)
    inner_lip = _ring(face.mouth_width * inner, *anatomy.lips(face, inner)[1:3])

    x = face.face_width * jnp.linspace(-0.9, 0.9, 13)
    hairline = _points(x, anatomy.hairline(face, x))

    iris = jnp.stack([-face.eye_x, face.eye_y + IRIS_Y])[None]
    middle = anatomy.lips(face, jnp.zeros(1))
    mouth = _points(jnp.zeros(1), (middle[1] + middle[2]) / 2)
    return jnp.concatenate(
        [
            *(jaw, left_brow, _mirrored(left_brow)[::-1], nose, base),
            *(left_eye, right_eye, outer_lip, inner_lip),
            *(hairline, iris, _mirrored(iris), mouth),
        ]
    )


def _points(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.stack([x, y], -1)


def _mirrored(points: jax.Array) -> jax.Array:
    return points * jnp.array([-1.0, 1.0])


def _both_sides(left: jax.Array) -> jax.Array:
    """Points from the left to the middle, and back up on the right."""
    return jnp.concatenate([left, _mirrored(left)[-2::-1]])


def _ring(x: jax.Array, top: jax.Array, bottom: jax.Array) -> jax.Array:
    """Clockwise: the upper edge from left to right, the lower one back."""
    return jnp.concatenate([_points(x, top), _points(x, bottom)[-2:0:-1]])
