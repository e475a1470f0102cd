"""Loss of a detector with landmarks: anchors matched to faces, hard negatives mined.

Source: Liu et al., SSD, 2016, Sec. 2.2; Deng et al., RetinaFace, 2019, Eq. 1, without
its dense regression; thresholds and weights are those of the official MobileNet code.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from kprpe_jax.detection.priors import encode_boxes, encode_keypoints
from kprpe_jax.detection.retinaface import Heads

BOX_WEIGHT = 2.0
POSITIVE_OVERLAP = 0.35  # an anchor that overlaps a face by less is background
LEAST_OVERLAP = 0.2  # a face that no anchor overlaps by so much is ignored
NEGATIVES = 7  # hard negatives for each positive of an image


class Targets(NamedTuple):
    """Labeled faces of images, up to F each.

    Attributes:
      boxes: float32 [B, F, 4], (left, top, right, bottom) as fractions of the image.
      keypoints: float32 [B, F, K, 2], (x, y) as fractions of the image.
      mask: bool [B, F], whether there is a face.
      keypoint_mask: bool [B, F], whether its keypoints are labeled.
    """

    boxes: Array
    keypoints: Array
    mask: Array
    keypoint_mask: Array


class MultiboxLoss(NamedTuple):
    """Parts of the loss, float32 scalars; 0 where no anchor is positive.

    Attributes:
      total: twice `boxes`, plus the others.
      boxes, keypoints: smooth L1 over the positive anchors.
      scores: cross entropy over positives and hard negatives, per positive.
    """

    total: Array
    boxes: Array
    keypoints: Array
    scores: Array


def multibox_loss(heads: Heads, targets: Targets, priors: Array) -> MultiboxLoss:
    """Compare raw outputs with labeled faces.

    Args:
      heads: of a batch.
      targets: of the same images.
      priors: [A, 4], of the network and the images' size.
    Raises: ValueError: heads of other anchors, targets of other shapes.
    """
    batch, count = heads.logits.shape[:2]
    faces, points = targets.keypoints.shape[1:3]
    shapes = heads.keypoints.shape[-1], targets.boxes.shape, targets.mask.shape
    if count != len(priors) or shapes != (
        *(2 * points, (batch, faces, 4), (batch, faces)),
    ):
        raise ValueError(
            f"multibox_loss: heads must be of {len(priors)} anchors and of the "
            f"keypoints of the targets; got {count} anchors and keypoints of shapes "
            f"{heads.keypoints.shape} and {targets.keypoints.shape}; give the priors "
            "of the images' size, and the targets of these images"
        )
    match = jax.vmap(partial(match_anchors, priors=priors))
    index, positive = match(targets.boxes, targets.mask)

    def pick(values: Array) -> Array:
        return jax.vmap(lambda rows, at: rows[at])(values, index)  # [B, A, ...]

    has_points = positive & pick(targets.keypoint_mask)
    boxes = encode_boxes(pick(targets.boxes), priors)
    keypoints = encode_keypoints(pick(targets.keypoints), priors)
    # What is not labeled may be anything, NaN too, and must not reach a gradient.
    boxes = jnp.where(positive[..., None], boxes, 0.0)
    keypoints = jnp.where(has_points[..., None], keypoints, 0.0)
    negative = hard_negatives(heads.logits, positive)
    log_scores = jax.nn.log_softmax(heads.logits.astype(jnp.float32))
    entropy = -jnp.where(positive, log_scores[..., 1], log_scores[..., 0])

    def mean(values: Array, which: Array, per: Array) -> Array:
        return jnp.where(which, values, 0.0).sum() / jnp.maximum(per.sum(), 1)

    box_loss = mean(smooth_l1(heads.boxes, boxes).sum(-1), positive, positive)
    point_loss = mean(
        smooth_l1(heads.keypoints, keypoints).sum(-1), has_points, has_points
    )
    score_loss = mean(entropy, positive | negative, positive)
    total = BOX_WEIGHT * box_loss + point_loss + score_loss
    return MultiboxLoss(total, box_loss, point_loss, score_loss)


def match_anchors(boxes: Array, mask: Array, *, priors: Array) -> tuple[Array, Array]:
    """Say for each anchor of an image which face it is to find, if any.

    An anchor belongs to the face that it overlaps most, if by POSITIVE_OVERLAP; the one
    that overlaps a face most belongs to it from LEAST_OVERLAP on.

    Args:
      boxes: [F, 4], as in `Targets`.
      mask: bool [F].
      priors: [A, 4].
    Returns: index int32 [A] of the face; bool [A], whether there is one.
    """
    corners = jnp.concatenate(
        [priors[:, :2] - priors[:, 2:] / 2, priors[:, :2] + priors[:, 2:] / 2], -1
    )
    overlap = jnp.where(mask[:, None], box_overlaps(boxes, corners), -1.0)  # [F, A]
    best_anchor = overlap.argmax(1)
    wanted = overlap.max(1) >= LEAST_OVERLAP
    # An anchor that several faces want goes to the last of them, as officially.
    number = jnp.arange(len(boxes))
    claim = jnp.where(wanted, number, -1)
    claimed = jnp.full(len(priors), -1).at[best_anchor].max(claim)
    index = jnp.where(claimed >= 0, claimed, overlap.argmax(0))
    positive = (claimed >= 0) | (overlap.max(0) >= POSITIVE_OVERLAP)
    return index.astype(jnp.int32), positive


def box_overlaps(first: Array, second: Array) -> Array:
    """Intersection over union, [N, M], of boxes [N, 4] and [M, 4]; 0 without area."""
    low = jnp.maximum(first[:, None, :2], second[None, :, :2])
    high = jnp.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = jnp.maximum(high - low, 0).prod(-1)
    areas = [jnp.maximum(b[:, 2:] - b[:, :2], 0).prod(-1) for b in (first, second)]
    union = areas[0][:, None] + areas[1][None] - shared
    return shared / jnp.maximum(union, 1e-12)


def hard_negatives(logits: Array, positive: Array) -> Array:
    """The background anchors with the highest face scores.

    Args:
      logits: [B, A, 2].
      positive: bool [B, A].
    Returns: bool [B, A], NEGATIVES for each positive of the same image, as far as there
      are; an image without a face has none.
    """
    logits = jax.lax.stop_gradient(logits.astype(jnp.float32))
    mistake = jnp.where(positive, -jnp.inf, logits[..., 1] - logits[..., 0])
    order = jnp.argsort(-mistake, axis=-1, stable=True)
    rank = jnp.argsort(order, axis=-1, stable=True)
    wanted = NEGATIVES * positive.sum(-1, keepdims=True)
    return (rank < wanted) & ~positive


def smooth_l1(predicted: Array, target: Array) -> Array:
    """Quadratic below 1, linear above: Girshick, Fast R-CNN, 2015, Eq. 3."""
    distance = jnp.abs(predicted.astype(jnp.float32) - target)
    return jnp.where(distance < 1, 0.5 * distance * distance, distance - 0.5)
