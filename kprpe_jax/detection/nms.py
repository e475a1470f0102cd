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


class MergedBoxes(NamedTuple):
    """Boxes and keypoints, each the mean of several that overlap, best first.

    Attributes:
      boxes: float32 [N, 4].
      keypoints: float32 [N, K, 2].
      scores: float32 [N], of the best of those merged.
      mask: bool [N], False where fewer than N boxes were left.
    """

    boxes: jax.Array
    keypoints: jax.Array
    scores: jax.Array
    mask: jax.Array


def merge_overlaps(
    boxes: jax.Array,
    keypoints: jax.Array,
    scores: jax.Array,
    *,
    max_kept: int,
    max_candidates: int = 1000,
    min_score: float = 0.5,
    max_overlap: float = 0.3,
) -> MergedBoxes:
    """Merge the best box with those that overlap it, then the best of the rest.

    Boxes and keypoints are the means of all that are merged, weighted by their scores.

    Source: BlazeFace, Sec. 3.4, "blending"; MediaPipe's weighted suppression.
    Args:
      boxes: [A, 4], (left, top, right, bottom) in any unit.
      keypoints: [A, K, 2], in any unit.
      scores: [A]; NaN is never kept.
      max_kept, max_candidates, min_score: as `suppress_overlaps`.
      max_overlap: intersection over union above which boxes are merged.
    """
    count = scores.shape[0]
    left, top, right, bottom = boxes.T
    valid = (scores > min_score) & (right > left) & (bottom > top)
    scores, order = jax.lax.top_k(
        jnp.where(valid, scores, -jnp.inf), min(max_candidates, count)
    )
    boxes, keypoints = boxes[order], keypoints[order]
    values = jnp.concatenate([boxes, keypoints.reshape(len(boxes), -1)], -1)
    low, high = boxes[:, :2], boxes[:, 2:]
    areas = (high - low).prod(-1)

    def merge_best(alive: jax.Array, _: None) -> tuple[jax.Array, tuple]:
        best = jnp.argmax(alive)  # the first, as candidates are sorted
        shared = jnp.minimum(high, high[best]) - jnp.maximum(low, low[best])
        shared = jnp.maximum(shared, 0).prod(-1)
        near = shared > max_overlap * (areas + areas[best] - shared)
        near = (near & alive).at[best].set(alive[best])
        weights = jnp.where(near, scores, 0)
        total = jnp.where(alive[best], weights.sum(), 1)
        # Not a matrix product: at full precision on every device.
        mean = (weights[:, None] * jnp.where(near[:, None], values, 0)).sum(0) / total
        return alive & ~near, (mean, scores[best], alive[best])

    alive = scores > -jnp.inf
    _, (means, best, mask) = jax.lax.scan(merge_best, alive, length=max_kept)
    return MergedBoxes(
        means[:, :4],
        means[:, 4:].reshape(max_kept, *keypoints.shape[1:]),
        jnp.where(mask, best, 0),
        mask,
    )
