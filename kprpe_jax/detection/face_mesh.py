"""FaceMesh: 468 points of a face in space, from a crop around it.

Source: Kartynnik et al., Real-time facial surface geometry from monocular video on
mobile GPUs, 2019; MediaPipe's model, whose layers these are.
"""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

from kprpe_jax.detection.blazeface import BlazeUnit
from kprpe_jax.layers.convolution import PRelu

MESH_POINTS = 468
# Points of the mesh whose mean is each of the five: corners and lids of the eyes, tip
# of the nose, corners of the mouth; left in the image first.
FIVE_POINTS = (
    (33, 133, 159, 145),
    (263, 362, 386, 374),
    (1, 4),
    (61,),
    (291,),
)
# The mesh's points for the 68 of iBUG 300-W, in its order: jaw, brows, nose, eyes,
# lips.
# Chosen by where they lie on the face; approximate, most of all along the jaw, whose
# labels follow the outline that the image shows and not a place on the head.
# fmt: off
IBUG_POINTS = (
    162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389,
    71, 63, 105, 66, 107, 336, 296, 334, 293, 301,
    168, 197, 5, 4, 75, 97, 2, 326, 305,
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181,
    78, 82, 13, 312, 308, 317, 14, 87,
)
# fmt: on
_ROI = 1.5  # side of the crop over the longer side of the detector's box
# Points of the mesh that span the head's axes: cheeks, top and chin.
_LEFT, _RIGHT, _TOP, _CHIN = 234, 454, 10, 152


class MeshOutput(NamedTuple):
    """What the network says of crops.

    Attributes:
      points: float32 [B, 468, 3], (x, y, depth) in pixels of the crop, pixel-edge
        coordinates; smaller depths are nearer.
      logits: float32 [B], of a face being there.
    """

    points: Array
    logits: Array


class FaceMesh(nn.Module):
    """Crops of faces to points.

    Attributes:
      image_size: (height, width) of the crops.
      dtype: compute type; outputs are float32.
    """

    image_size: tuple[int, int] = (192, 192)
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: Array) -> MeshOutput:
        """[B, 192, 192, 3], RGB in [-1, 1], upright faces -> points and logits."""
        stem = nn.Conv(16, (3, 3), 2, dtype=self.dtype, name="stem")
        x = PRelu(name="stem_act")(stem((images.astype(self.dtype) + 1) / 2))
        number = 0
        for width, count in ((16, 2), (32, 3), (64, 3), (128, 3), (128, 3)):
            for index in range(count):
                stride = 2 if number > 1 and not index else 1
                x = self._unit(width, stride, f"unit{number}")(x)
                number += 1
        points = self._head(x, 3, 3 * MESH_POINTS, "points")
        logits = self._head(x, 1, 1, "logits")
        return MeshOutput(points.reshape(x.shape[0], MESH_POINTS, 3), logits[:, 0])

    def _head(self, x: Array, units: int, size: int, name: str) -> Array:
        """[B, 6, 6, 128] -> float32 [B, size]."""
        for index in range(units):
            x = self._unit(128, 1 if index else 2, f"{name}_unit{index}")(x)
        x = nn.Conv(32, (1, 1), dtype=self.dtype, name=f"{name}_conv")(x)
        x = PRelu(name=f"{name}_act")(x)
        x = self._unit(32, 1, f"{name}_last")(x)
        head = nn.Conv(size, (3, 3), padding=0, dtype=self.dtype, name=name)
        return head(x).astype(jnp.float32).reshape(x.shape[0], size)

    def _unit(self, width: int, stride: int, name: str) -> BlazeUnit:
        return BlazeUnit((width,), stride, True, self.dtype, name=name)


def crop_matrix(boxes: Array, eyes: Array, size: tuple[int, int]) -> Array:
    """Maps from the pixels of FaceMesh's crops to those of the image.

    A crop is a square of one and a half times the box's longer side around its middle,
    turned so that the eyes are level.

    Args:
      boxes: [..., 4], (left, top, right, bottom) in pixels of the image.
      eyes: [..., 2, 2], (x, y) of the left and the right eye there.
      size: (height, width) of the crops.
    Returns: float32 [..., 2, 3], in pixel-edge coordinates.
    """
    low, high = boxes[..., :2], boxes[..., 2:]
    side = _ROI * (high - low).max(-1)
    across = eyes[..., 1, :] - eyes[..., 0, :]
    length = jnp.linalg.norm(across, axis=-1, keepdims=True)
    level = jnp.array([1.0, 0.0])
    across = jnp.where(length > 0, across / jnp.where(length > 0, length, 1), level)
    scale = across * (side / size[1])[..., None]
    linear = jnp.stack(
        [
            jnp.stack([scale[..., 0], -scale[..., 1]], -1),
            jnp.stack([scale[..., 1], scale[..., 0]], -1),
        ],
        -2,
    )
    middle = linear @ jnp.array([size[1] / 2, size[0] / 2])
    offset = (low + high) / 2 - middle
    return jnp.concatenate([linear, offset[..., None]], -1).astype(jnp.float32)


def choose_points(text: str) -> tuple[int, ...]:
    """Points of the mesh by a name or by their numbers.

    Args:
      text: "5" = none beside the five keypoints; "68" = IBUG_POINTS; "mesh" = all; or
        three or more numbers, "33,263,1".
    Raises: ValueError: none of these.
    """
    named = {"5": (), "68": IBUG_POINTS, "mesh": tuple(range(MESH_POINTS))}
    if text in named:
        return named[text]
    numbers = text.split(",")
    if not all(number.isdecimal() for number in numbers) or len(numbers) < 3:
        raise ValueError(
            "--points must be 5, 68, mesh, or three or more numbers of FaceMesh's "
            f"points, such as 33,263,1; got {text}."
        )
    chosen = tuple(map(int, numbers))
    if max(chosen) >= MESH_POINTS or len({*chosen}) < len(chosen):
        raise ValueError(
            f"--points are different numbers from 0 to {MESH_POINTS - 1}; got {text}."
        )
    return chosen


def five_points(mesh: Array) -> Array:
    """The five points of a mesh: [..., 468, C] -> [..., 5, C]."""
    return jnp.stack([mesh[..., np.array(x), :].mean(-2) for x in FIVE_POINTS], axis=-2)


def head_pose(mesh: Array) -> Array:
    """Which way heads look.

    Args:
      mesh: [..., 468, 3], (x, y, depth) in one unit, of an image that was not
        stretched.
    Returns: float32 [..., 3], yaw, pitch and roll in degrees: positive where the face
      looks to the right of the image, looks up, and is turned clockwise.
    """

    def unit(x: Array) -> Array:
        return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-9)

    across = unit(mesh[..., _RIGHT, :] - mesh[..., _LEFT, :])
    down = mesh[..., _CHIN, :] - mesh[..., _TOP, :]
    down = unit(down - (down * across).sum(-1, keepdims=True) * across)
    forward = jnp.cross(down, across)  # out of the face, towards smaller depths
    yaw = jnp.arctan2(forward[..., 0], -forward[..., 2])
    pitch = jnp.arcsin(jnp.clip(-forward[..., 1], -1, 1))
    roll = jnp.arctan2(across[..., 1], across[..., 0])
    return jnp.degrees(jnp.stack([yaw, pitch, roll], -1)).astype(jnp.float32)
