"""Losses of set fusion: toward the class center, and the same in a stream.

Cosines are taken of vectors divided by their norm plus 1e-5, as in the official code;
the paper does not say what becomes of short ones. A zero vector has cosine 0 with all.
"""

import jax
import jax.numpy as jnp
from jax import Array

from kprpe_jax.core.unit import soft_unit


def cosine_distance(x: Array, y: Array) -> Array:
    """1 - cosine, row by row.

    Args:
      x, y: [..., D], not normalized.
    Returns: float32 [...], in [0, 2].
    Raises: ValueError: other shapes.
    """
    if x.shape != y.shape:
        raise ValueError(
            "cosine_distance: there must be two vectors in each row, [B, D] both; got "
            f"{x.shape} and {y.shape}; give a class center, or a partner, for each set"
        )
    return 1.0 - (soft_unit(x) * soft_unit(y)).sum(-1)


def template_loss(fused: Array, centers: Array) -> Array:
    """Draw the embedding of a set to the center of its class.

    Source: Cluster and Aggregate, Eq. 9.

    Args:
      fused: [B, D], of sets.
      centers: f_GT [B, D], those of their classes; no gradient flows to them.
    Returns: float32 scalar, mean over the sets.
    """
    return cosine_distance(fused, jax.lax.stop_gradient(centers)).mean()


def permutation_loss(streamed: Array, at_once: Array) -> Array:
    """Draw what a stream of batches gives to what all images give at once.

    Source: Cluster and Aggregate, Eq. 10. Gradients flow to both sides, as in the
    official code, which divides by B once more: its weight of 1 is 1 / B here.

    Args:
      streamed, at_once: [B, D], of the same sets.
    Returns: float32 scalar, mean over the sets.
    """
    return cosine_distance(streamed, at_once).mean()


def class_means(embeddings: Array, labels: Array, *, num_classes: int) -> Array:
    """Class centers: the unit vector along the mean of a class's unit embeddings.

    Source: Cluster and Aggregate, Sec. 3.2 (f_GT) and Supp. A; with flip augmentation
    if the embeddings are sums over an image and its mirror image.

    Args:
      embeddings: [N, D], not normalized.
      labels: int [N]; rows outside 0 .. num_classes - 1 are left out.
      num_classes: C.
    Returns: float32 [C, D]; 0 for classes without images.
    """
    units = soft_unit(jnp.asarray(embeddings))
    sums = jax.ops.segment_sum(units, jnp.asarray(labels), num_classes)
    norms = jnp.linalg.norm(sums, axis=-1, keepdims=True)
    return sums / jnp.maximum(norms, 1e-12)
