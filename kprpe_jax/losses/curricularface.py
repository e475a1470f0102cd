"""CurricularFace: hard negatives that count more as training goes on.

Source: CurricularFace (Huang et al., CVPR 2020). A negative is hard where its cosine is
larger than that of the true class with its margin. What it counts, t + cos, grows with
t, a running mean of the cosines of the true classes.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from kprpe_jax.losses.margin import ARCFACE, add_angle

MOMENTUM = 0.01  # weight of a batch in t; the paper's alpha is 0.99, of the old value


def initial_target_mean() -> Array:
    """The official start of t: 0."""
    return jnp.float32(0.0)


def move_target_mean(target_mean: Array, total: Array, count: Array) -> Array:
    """The running mean of target cosines, t, after a batch.

    The batch enters t before it is used, as in the official code; no gradient flows.

    Args:
      target_mean: t before, float32 scalar.
      total: sum of the cosines between the labeled samples of the global batch and the
        centers of their classes.
      count: how many these are; 0 leaves t as it is.
    """
    mean = jax.lax.stop_gradient(total) / jnp.maximum(count, 1)
    moved = MOMENTUM * mean + (1.0 - MOMENTUM) * target_mean
    return jnp.where(count > 0, moved, target_mean)


def hard_negatives(
    cosine: Array, target: ArrayLike, margin: float, target_mean: ArrayLike
) -> Array:
    """Cosines of the other classes, hard ones multiplied by t + cos.

    Where theta + margin is beyond pi, the threshold rises again, as in the official
    code.

    Args:
      cosine: float32 [B, C] in [-1, 1].
      target: float32 [B, 1], cosines of the true classes.
      margin: m, radians.
      target_mean: t, float32 scalar.
    Returns: float32 [B, C].
    """
    threshold = jax.lax.stop_gradient(add_angle(target, margin, angle="free"))
    hard = cosine * (target_mean + cosine)
    return jnp.where(cosine > threshold, hard, cosine)


CURRICULARFACE = ARCFACE._replace(other_cosine=hard_negatives)
