"""Losses of part-based embeddings: triplets and the cross entropy beside them.

Every part is a problem of its own: distances are taken within it, and the loss is the
mean over parts. Labels of -1 take no part.
"""

from typing import NamedTuple

import jax.numpy as jnp
import optax
from jax import Array


class TripletLoss(NamedTuple):
    """float32 scalars.

    Attributes:
      loss: mean over parts.
      active: share of the triplets (or anchors) whose hinge is above zero.
    """

    loss: Array
    active: Array


def batch_all(embeddings: Array, labels: Array, *, margin: float = 0.2) -> TripletLoss:
    """Mean hinge over all triplets of the batch that violate the margin.

    For anchor a, positive p and negative n: max(d(a, p) - d(a, n) + margin, 0),
    averaged per part over the triplets above zero, 0 where there is none. An anchor is
    not its own positive.

    Source: Hermans et al., In defense of the triplet loss, 2017, batch all, mean over
    non-zero terms; margin of the official SwinGait configuration.
    Args:
      embeddings: [B, P, D], not normalized; [B, D] counts as one part.
      labels: int32 [B], -1 = ignore.
      margin: > 0, in units of the distance.
    Returns: zeros where the batch has no triplet.
    Raises: ValueError: shapes that do not fit.
    """
    distances = _distances("batch_all", embeddings, labels)  # [P, B, B]
    positive, negative = _pairs(labels)
    valid = positive[:, :, None] & negative[:, None, :]  # [a, p, n]
    hinge = distances[..., :, None] - distances[..., None, :] + margin
    hinge = jnp.where(valid, jnp.maximum(hinge, 0.0), 0.0)
    violated = (hinge > 0).sum((1, 2, 3))
    loss = hinge.sum((1, 2, 3)) / jnp.maximum(violated, 1)
    active = violated.mean() / jnp.maximum(valid.sum(), 1)
    return TripletLoss(loss.mean(), active)


def batch_hard(embeddings: Array, labels: Array, *, margin: float = 0.2) -> TripletLoss:
    """Mean hinge of each anchor's farthest positive and nearest negative.

    Source: Hermans et al., In defense of the triplet loss, 2017, batch hard.
    Args: as `batch_all`.
    Returns: means over the anchors that have both a positive and a negative; zeros
      where there is none.
    Raises: ValueError: shapes that do not fit.
    """
    distances = _distances("batch_hard", embeddings, labels)
    positive, negative = _pairs(labels)
    anchor = positive.any(1) & negative.any(1)
    farthest = jnp.where(positive, distances, 0.0).max(-1)  # [P, B]
    # Larger than all, yet finite: an anchor without negatives leaves no NaN behind.
    nearest = jnp.where(negative, distances, distances.max() + 1.0).min(-1)
    hinge = jnp.where(anchor, jnp.maximum(farthest - nearest + margin, 0.0), 0.0)
    count = jnp.maximum(anchor.sum(), 1)
    return TripletLoss(
        (hinge.sum(-1) / count).mean(), (hinge > 0).sum(-1).mean() / count
    )


def part_cross_entropy(logits: Array, labels: Array, *, scale: float = 16.0) -> Array:
    """Softmax cross entropy of every part, averaged.

    Source: the official SwinGait configuration (scale 16).
    Args:
      logits: [B, P, classes], cosines in [-1, 1].
      labels: int32 [B], -1 = ignore.
      scale: times the cosines.
    Returns: float32 scalar, 0 where all labels are -1.
    """
    valid = (labels >= 0)[:, None]
    scaled = scale * logits.astype(jnp.float32)
    losses = optax.softmax_cross_entropy_with_integer_labels(
        scaled, jnp.broadcast_to(jnp.maximum(labels, 0)[:, None], logits.shape[:2])
    )
    return jnp.where(valid, losses, 0.0).sum() / jnp.maximum(
        valid.sum() * logits.shape[1], 1
    )


def _distances(name: str, embeddings: Array, labels: Array) -> Array:
    """Euclidean distances per part, float32 [P, B, B]; gradient 0 at distance 0."""
    if embeddings.ndim == 2:
        embeddings = embeddings[:, None]
    if embeddings.ndim != 3 or labels.shape != embeddings.shape[:1]:
        raise ValueError(
            f"{name}: embeddings must be [B, P, D] or [B, D] and labels [B]; got "
            f"{embeddings.shape} and {labels.shape}; give one label per sequence."
        )
    parts = embeddings.astype(jnp.float32).swapaxes(0, 1)
    difference = parts[:, :, None] - parts[:, None]
    square = jnp.square(difference).sum(-1)
    apart = square > 0
    return jnp.where(apart, jnp.sqrt(jnp.where(apart, square, 1.0)), 0.0)


def _pairs(labels: Array) -> tuple[Array, Array]:
    """bool [B, B]: same person but another sequence; another person."""
    known = (labels[:, None] >= 0) & (labels >= 0)
    same = labels[:, None] == labels
    others = ~jnp.eye(labels.shape[0], dtype=bool)
    return known & same & others, known & ~same
