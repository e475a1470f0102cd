"""Non-maximum suppression with fixed sizes, so that it compiles once."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class NmsResult(NamedTuple):
    """Boxes that suppression keeps.

    Attributes:
      index: int32 [N], of the boxes kept, best first; 0 where `mask` is False.
      mask: bool [N], False where fewer than N boxes were left.
    """

    index: jax.Array
    mask: jax.Array


def suppress_overlaps(
    boxes: jax.Array,
    scores: jax.Array,
    *,
    max_kept: int,
    max_candidates: int = 5000,
    min_score: float = 0.02,
    max_overlap: float = 0.4,
    extra: float = 0.0,
) -> NmsResult:
    """Keep the best box, drop those that overlap it, and so on.

    Memory is that of the candidates, not of their pairs; use `jax.vmap` for a batch.

    Args:
      boxes: [A, 4], (left, top, right, bottom) in any unit.
      scores: [A]; NaN is never kept.
      max_kept: N, boxes that can be kept.
      max_candidates: boxes that are considered, those of the best scores.
      min_score: boxes must score more.
      max_overlap: intersection over union above which the lesser box is dropped.
      extra: added to every width and height; 1 for boxes in pixels that include both
        end pixels, as the official code counts.
    Returns: the boxes that are kept.
    """
    count = scores.shape[0]
    scores = jnp.where(scores > min_score, scores, -jnp.inf)
    scores, order = jax.lax.top_k(scores, min(max_candidates, count))
    left, top, right, bottom = boxes[order].T

    def length(low: jax.Array, high: jax.Array) -> jax.Array:
        return jnp.maximum(high - low + extra, 0)

    areas = length(left, right) * length(top, bottom)

    def keep_best(alive: jax.Array, _: None) -> tuple[jax.Array, NmsResult]:
        best = jnp.argmax(alive)  # the first, as candidates are sorted
        shared = length(
            jnp.maximum(left, left[best]), jnp.minimum(right, right[best])
        ) * length(jnp.maximum(top, top[best]), jnp.minimum(bottom, bottom[best]))
        # No division: boxes without an area overlap nothing.
        apart = shared <= max_overlap * (areas + areas[best] - shared)
        left_over = (alive & apart).at[best].set(False)
        mask = alive[best]
        return left_over, NmsResult(
            jnp.where(mask, order[best], 0).astype(jnp.int32), mask
        )

    _, kept = jax.lax.scan(keep_best, scores > -jnp.inf, length=max_kept)
    return kept
