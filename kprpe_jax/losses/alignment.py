"""How strongly faces are aligned, as a loss: a template, and weights of its points.

Source: Balanced Alignment, Sec. 4.2, Eqs. 2-4.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

# Distances are counted in pixels of an image of this side, the paper's, whatever the
# true one: so the balance with the recognition loss does not hang on the resolution.
PIXELS = 112.0


class AlignmentLoss(NamedTuple):
    """Parts of the loss, float32 scalars.

    Attributes:
      total: L_align, Eq. 2.
      landmarks: L_lmk, Eq. 3.
      regularization: L_reg, Eq. 4.
      distance: mean distance without the weights, pixels of a 112 x 112 image.
    """

    total: Array
    landmarks: Array
    regularization: Array
    distance: Array


def alignment_loss(
    warped: Array, landmarks: Array, weights: Array, known: Array | None = None
) -> AlignmentLoss:
    """Distance between landmarks and the template as the warp takes it to the image.

    Only this loss reaches the weights. For a landmark at mean distance d, of S, it is
    least at the weight 1 - d / (2 S): they say how well each landmark is met, and with
    84 landmarks leave 1 only where faces lie many pixels apart.

    Args:
      warped: [B, S, 2], W(T; I): where the template's points lie in each image, as
        fractions of it.
      landmarks: [B, S, 2], where the landmarks are.
      weights: [S], alpha, in (0, 1).
      known: bool [B], whether the landmarks of an image are known, or [B, S], which of
        them are; what the others hold does not matter. A landmark's distance is the
        mean over the images where it is known, 0 without any. None = all.
    Raises: ValueError: shapes that differ.
    """
    if warped.shape != landmarks.shape or weights.shape != warped.shape[1:2]:
        raise ValueError(
            "alignment_loss: warped and landmarks must be [B, S, 2] and weights [S]; "
            f"got {warped.shape}, {landmarks.shape} and {weights.shape}; give the "
            "landmarks that the template has"
        )
    if known is None:
        known = jnp.ones(len(landmarks), bool)
    if known.ndim == 1:
        known = known[:, None]
    if known.shape[0] != len(landmarks) or known.shape[1] not in (1, len(weights)):
        raise ValueError(
            "alignment_loss: known must be [B] or [B, S] as the landmarks are; got "
            f"{known.shape} for {landmarks.shape}; say of each which are known"
        )
    # Selected before the difference: a warp that is not finite has no gradient then.
    both = jnp.stack([warped, landmarks]).astype(jnp.float32)
    warped, landmarks = jnp.where(known[..., None], both, 0.0)
    squares = jnp.square((warped - landmarks) * PIXELS).sum(-1)
    met = squares <= 0  # a point that is met exactly has no direction to move to
    distances = jnp.where(met, 0.0, jnp.sqrt(jnp.where(met, 1.0, squares)))
    per_landmark = distances.sum(0) / jnp.maximum(known.sum(0), 1)
    landmark_loss = (weights * per_landmark).mean()
    regularization = jnp.square(1 - weights).sum()
    return AlignmentLoss(
        landmark_loss + regularization,
        landmark_loss,
        regularization,
        jax.lax.stop_gradient(per_landmark.mean()),
    )
