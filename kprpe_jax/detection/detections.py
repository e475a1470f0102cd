"""Detections: the outputs of RetinaFace, decoded and without overlaps."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kprpe_jax.detection.nms import suppress_overlaps
from kprpe_jax.detection.priors import (
    RETINAFACE_ANCHORS,
    Anchors,
    decode_boxes,
    decode_keypoints,
    make_priors,
)
from kprpe_jax.detection.retinaface import Heads


class Detections(NamedTuple):
    """Up to N faces per image, zeros where `mask` is False.

    Attributes:
      boxes: float32 [B, N, 4], (left, top, right, bottom) as fractions of the image.
      keypoints: float32 [B, N, K, 2], (x, y) as fractions of the image.
      scores: float32 [B, N], in 0..1.
      mask: bool [B, N].
      poses: float32 [B, N, 3], yaw, pitch and roll in degrees, as `face_mesh.head_pose`
        gives them; None = the detector sees none.
    """

    boxes: jax.Array
    keypoints: jax.Array
    scores: jax.Array
    mask: jax.Array
    poses: jax.Array | None = None


def decode_detections(
    heads: Heads,
    size: tuple[int, int],
    *,
    max_faces: int,
    anchors: Anchors = RETINAFACE_ANCHORS,
    min_score: float = 0.5,
    max_overlap: float = 0.4,
) -> Detections:
    """Decode a network's outputs and keep one box per face, best score first.

    An image without a face has an all-False mask. A face smaller than the smallest
    anchor (10 pixels) may be missed: enlarge the image.

    Args:
      heads: of a batch of images.
      size: (height, width) of the images in pixels.
      max_faces: N.
      anchors: of the network.
      min_score: faces must score more; the official test script says 0.02.
      max_overlap: of two faces, intersection over union.
    Raises: ValueError: outputs of another image size or other anchors.
    """
    priors = make_priors(size, anchors)
    if heads.boxes.shape[1] != len(priors):
        raise ValueError(
            f"decode_detections: images of {size[0]} x {size[1]} have {len(priors)} "
            f"anchors; got outputs of {heads.boxes.shape[1]}; give the size and the "
            "anchors that the network ran with"
        )
    boxes = decode_boxes(heads.boxes, priors)
    keypoints = decode_keypoints(heads.keypoints, priors)
    scores = jax.nn.softmax(heads.logits)[..., 1]
    # Overlaps are measured in pixels, end pixels included, as in the official code.
    pixels = boxes * np.array([size[1], size[0]] * 2, np.float32)
    keep = partial(
        suppress_overlaps,
        max_kept=max_faces,
        min_score=min_score,
        max_overlap=max_overlap,
        extra=1.0,
    )
    index, mask = jax.vmap(keep)(pixels, scores)

    def pick(values: jax.Array) -> jax.Array:
        chosen = jax.vmap(lambda rows, at: rows[at])(values, index)
        return jnp.where(mask.reshape(mask.shape + (1,) * (values.ndim - 2)), chosen, 0)

    return Detections(pick(boxes), pick(keypoints), pick(scores), mask)


def merge_close_ups(
    detections: Detections, coarse: Detections, side: float
) -> Detections:
    """Merge the detections in images with those in small copies of them.

    In a face that is larger than its anchors a detector finds parts; in a small copy it
    finds the whole face. A detection that lies by more than half of its area within
    such a face is dropped as a part of it.

    Args:
      detections: [B, N], of the images.
      coarse: [B, M], of the copies.
      side: fraction of the image; of `coarse`, only faces larger than this square are
        used.
    Returns: [B, N + M], not sorted.
    """

    def area(boxes: jax.Array) -> jax.Array:
        left, top, right, bottom = jnp.moveaxis(boxes, -1, 0)
        return jnp.maximum(right - left, 0) * jnp.maximum(bottom - top, 0)

    large = coarse.mask & (area(coarse.boxes) > side * side)
    one, other = detections.boxes[:, :, None], coarse.boxes[:, None]  # [B, N, M, 4]
    low = jnp.maximum(one[..., :2], other[..., :2])
    high = jnp.minimum(one[..., 2:], other[..., 2:])
    inside = area(jnp.concatenate([low, high], -1)) > 0.5 * area(one)
    part = (inside & large[:, None]).any(-1)
    both = (
        detections._replace(mask=detections.mask & ~part),
        coarse._replace(mask=large),
    )
    return jax.tree.map(lambda *x: jnp.concatenate(x, 1), *both)


def largest_face(detections: Detections) -> tuple[jax.Array, jax.Array]:
    """Select the face of each image with the largest box.

    Returns: keypoints float32 [B, K, 2] and whether there is a face, bool [B]; zeros
      where there is none.
    """
    left, top, right, bottom = jnp.moveaxis(detections.boxes, -1, 0)
    best = jnp.argmax(
        jnp.where(detections.mask, (right - left) * (bottom - top), -1), -1
    )
    keypoints = jax.vmap(lambda rows, at: rows[at])(detections.keypoints, best)
    return keypoints, detections.mask.any(-1)
