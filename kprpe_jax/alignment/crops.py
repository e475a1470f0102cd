"""Square crops around faces, to train a landmark network of one face."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kprpe_jax.core.input_spec import BLACK
from kprpe_jax.geometry import affine
from kprpe_jax.geometry.sampling import warp_affine


class Crops(NamedTuple):
    """Square crops around faces.

    Attributes:
      images: float32 [B, S, S, C].
      keypoints: float32 [B, K, 2], fractions of the crop.
      boxes: float32 [B, 4], (left, top, right, bottom) as fractions of the crop.
    """

    images: jax.Array
    keypoints: jax.Array
    boxes: jax.Array


def keypoint_boxes(keypoints: jax.Array) -> jax.Array:
    """Smallest upright boxes around keypoints: [B, K, 2] -> [B, 4]."""
    return jnp.concatenate([keypoints.min(-2), keypoints.max(-2)], axis=-1)


def crop_faces(
    images: jax.Array,
    keypoints: jax.Array,
    *,
    size: int,
    padding: float = 0.1,
    jitter: float = 0.0,
    rng: jax.Array | None = None,
    boxes: jax.Array | None = None,
) -> Crops:
    """Crop the square around each face's box, with a border.

    Source: KP-RPE, Supp. 3: crops by labeled boxes with a padding of 0.1, resized.
    Here they keep their proportions.
    Args:
      images: [B, H, W, C], values in [-1, 1].
      keypoints: [B, K, 2], fractions of the image.
      size: S, pixels.
      padding: border on each side, in sides of the box.
      jitter: the crop moves by up to this, and its side changes by up to this factor,
        in sides of the box, uniform.
      rng: key for the jitter.
      boxes: [B, 4], (left, top, right, bottom), fractions of the image; None = those of
        the keypoints.
    """
    height, width = images.shape[1:3]
    frame = np.array([width, height] * 2, np.float32)
    boxes = keypoint_boxes(keypoints) if boxes is None else boxes
    low, high = jnp.split(boxes * frame, 2, axis=-1)
    side = jnp.maximum((high - low).max(-1, keepdims=True), 1.0)  # [B, 1]
    center, extent = (low + high) / 2, side * (1 + 2 * padding)
    if jitter:
        draw = jax.random.uniform(rng, (len(images), 3), minval=-1, maxval=1) * jitter
        center, extent = center + draw[:, :2] * side, extent * (1 + draw[:, 2:])
    scale = size / extent
    eye = jnp.broadcast_to(jnp.eye(2), (len(images), 2, 2)) * scale[..., None]
    offset = size / 2 - center * scale
    matrix = jnp.concatenate([eye, offset[..., None]], axis=-1)  # frame to crop
    cut = warp_affine(
        images, affine.invert(matrix), out_size=(size, size), outside=BLACK
    )
    moved = affine.apply(matrix, keypoints * frame[:2]) / size
    corners = affine.apply(matrix, boxes.reshape(-1, 2, 2) * frame[:2]) / size
    return Crops(cut, moved, corners.reshape(-1, 4))
