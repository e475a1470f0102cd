"""Anchors of a detector, and boxes and keypoints as offsets from them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# Offsets are in tenths of an anchor's size, logarithms of sizes in fifths.
CENTER_VARIANCE, SIZE_VARIANCE = 0.1, 0.2


class Anchors(NamedTuple):
    """Square anchors of a detector.

    Attributes:
      sizes: in pixels, per level, fine to coarse.
      strides: pixels per cell of each level.
    """

    sizes: tuple[tuple[int, ...], ...]
    strides: tuple[int, ...] = (8, 16, 32)


RETINAFACE_ANCHORS = Anchors(((10, 20), (32, 64), (128, 256)))
ALIGNER_ANCHORS = Anchors(((64, 80), (96, 112), (128, 144)))  # one large face


def make_priors(size: tuple[int, int], anchors: Anchors) -> np.ndarray:
    """Compute the anchors of an image, in the order of the network's outputs.

    Args:
      size: (height, width) in pixels.
      anchors: of the detector.
    Returns: float32 [A, 4], (center x, center y, width, height) as fractions of the
      image; by level, row, column and size; not clipped to the image.
    """
    height, width = size
    levels = []
    for sides, stride in zip(anchors.sizes, anchors.strides, strict=True):
        rows, columns = -(-height // stride), -(-width // stride)
        y, x, side = np.meshgrid(
            (np.arange(rows) + 0.5) * stride,
            (np.arange(columns) + 0.5) * stride,
            np.array(sides, np.float64),
            indexing="ij",
        )
        boxes = np.stack([x / width, y / height, side / width, side / height], axis=-1)
        levels.append(boxes.reshape(-1, 4))
    return np.concatenate(levels).astype(np.float32)


def decode_boxes(offsets: jax.Array, priors: jax.Array) -> jax.Array:
    """Decode boxes from raw outputs.

    Args:
      offsets: [..., A, 4].
      priors: [A, 4].
    Returns: float32 [..., A, 4], (left, top, right, bottom) as fractions of the image.
    """
    center = priors[:, :2] + offsets[..., :2] * CENTER_VARIANCE * priors[:, 2:]
    size = priors[:, 2:] * jnp.exp(offsets[..., 2:] * SIZE_VARIANCE)
    corner = center - size / 2
    return jnp.concatenate([corner, corner + size], axis=-1)


def decode_keypoints(offsets: jax.Array, priors: jax.Array) -> jax.Array:
    """Decode keypoints from raw outputs.

    Args:
      offsets: [..., A, 2 K].
      priors: [A, 4].
    Returns: float32 [..., A, K, 2], (x, y) as fractions of the image.
    """
    offsets = offsets.reshape(*offsets.shape[:-1], -1, 2)
    return priors[:, None, :2] + offsets * CENTER_VARIANCE * priors[:, None, 2:]


def encode_boxes(boxes: jax.Array, priors: jax.Array) -> jax.Array:
    """Encode boxes as the offsets that `decode_boxes` reads.

    Args:
      boxes: [..., A, 4], (left, top, right, bottom) as fractions of the image; sides
        below a millionth are taken as a millionth.
      priors: [A, 4].
    Returns: float32 [..., A, 4].
    """
    low, high = boxes[..., :2], boxes[..., 2:]
    center = ((low + high) / 2 - priors[:, :2]) / (CENTER_VARIANCE * priors[:, 2:])
    size = jnp.log(jnp.maximum(high - low, 1e-6) / priors[:, 2:]) / SIZE_VARIANCE
    return jnp.concatenate([center, size], axis=-1)


def encode_keypoints(keypoints: jax.Array, priors: jax.Array) -> jax.Array:
    """Encode keypoints as the offsets that `decode_keypoints` reads.

    Args:
      keypoints: [..., A, K, 2], (x, y) as fractions of the image.
      priors: [A, 4].
    Returns: float32 [..., A, 2 K].
    """
    offsets = keypoints - priors[:, None, :2]
    offsets = offsets / (CENTER_VARIANCE * priors[:, None, 2:])
    return offsets.reshape(*offsets.shape[:-2], -1)
