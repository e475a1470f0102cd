"""Score of how well the landmarks of an image fit the canonical ones."""

import jax.numpy as jnp
from jax import Array

from kprpe_jax.core.unit import unit

DISTANCES = ("whole", "per_point")


def landmark_score(
    landmarks: Array,
    canonical: Array,
    *,
    reach: float = 0.2,
    distance: str = "whole",
) -> Array:
    """Score d of an image: 1 where its landmarks are the canonical ones.

    Source: KP-RPE, Eq. 17; `reach` is its h.

    Args:
      landmarks: [..., K, 2], fractions of the image.
      canonical: [K, 2], where the aligned training images have them.
      reach: distance at which the score becomes 0.
      distance: `whole`: norm of the whole difference, as in Eq. 17; `per_point`: mean
        distance of the points, as in the official code.
    Returns: float32 [...] in [0, 1]; NaN where a landmark is NaN.
    Raises: ValueError: unknown distance.
    """
    if distance not in DISTANCES:
        raise ValueError(
            f"landmark_score: unknown distance {distance!r}; use one of {DISTANCES}."
        )
    squared = jnp.square(landmarks.astype(jnp.float32) - canonical).sum(-1)
    if distance == "whole":
        away = _root(squared.sum(-1))
    else:
        away = _root(squared).mean(-1)
    return (reach - jnp.minimum(away, reach)) / reach


def score_weighted(
    embeddings: Array, scores: Array, face_scores: Array, *, least: float = 1e-6
) -> Array:
    """Embeddings whose norm is replaced by the quality d F, to be averaged (Eq. 18).

    Source: KP-RPE, Eq. 18.

    Args:
      embeddings: [..., D], any norm; a zero embedding stays zero.
      scores: [...] in [0, 1], d from `landmark_score`.
      face_scores: [...] in [0, 1], of the detector.
      least: quality below which none falls, so that a template of bad images only has a
        direction; 1e-6 in the official code, 0 in Eq. 18.
    Returns: float32 [..., D].
    """
    quality = jnp.clip(scores * face_scores, least, 1.0)
    return unit(embeddings) * quality[..., None]


def _root(squared: Array) -> Array:
    """Square root with gradient 0 at 0; NaN stays NaN."""
    zero = squared == 0
    return jnp.where(zero, 0.0, jnp.sqrt(jnp.where(zero, 1.0, squared)))
