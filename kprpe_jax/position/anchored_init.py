"""Anchored initialization of f(P): every head starts at a keypoint-anchored location.

f(P) is linear in the keypoints, which is enough to express a location. The keypoints of
an image determine, by least squares, the affine map from an upright template to it; the
image of a location p of the template is a weighted sum of the keypoints,

    G(P) = sum_k a_k P_k,    a = [p, 1] pinv([T, 1]),    sum_k a_k = 1

With e = M_j - M_i, a Gaussian of width s around G is, on the logits of any query i,

    -|M_j - G|^2 / 2s^2 = -|e|^2 / 2s^2 - e (M_i - G) / s^2 - |M_i - G|^2 / 2s^2

The last term is the same for all keys, so the softmax removes it. The first two are c
and D'W of Eq. 10, where e is the offset of the bucket d(i, j) and M_i - G is the sum of
a_k (M_i - P_k); buckets that join several offsets take their mean. So f(P) can express
a head that attends to the left cheek in any pose; with zero initialization it must be
learned.
"""

from collections.abc import Sequence

import numpy as np

from kprpe_jax.position.lookup import BucketSet, num_buckets

# The most evenly spread sequence of its kind in two dimensions: the powers of the root
# of x^3 = x + 1, the plane's golden ratio (Roberts, 2018).
_STEPS = np.array([0.7548776662466927, 0.5698402909980532])


def spread_locations(count: int) -> np.ndarray:
    """Spread points over the unit square, each far from those just before it.

    Returns: float64 [count, 2] in [0, 1), the first in the center.
    """
    return (0.5 + np.arange(count)[:, None] * _STEPS) % 1


def location_weights(template: np.ndarray, locations: np.ndarray) -> np.ndarray:
    """Weights of the keypoints whose sum is a location that follows them affinely.

    Args:
      template: [K, 2], where the keypoints of an upright image are.
      locations: [N, 2], in the template's frame.
    Returns: float64 [N, K], rows sum to 1.
    Raises: ValueError: fewer than three keypoints, or all on a line.
    """
    points = np.concatenate([template, np.ones((len(template), 1))], 1, dtype=float)
    spread = np.linalg.svd(points - points.mean(0), compute_uv=False)
    if len(template) < 3 or spread[1] <= 1e-3 * spread[0]:
        raise ValueError(
            "location_weights: the template must have three or more points that are "
            f"not on a line; got {np.asarray(template).tolist()}; set anchor_width to "
            "0."
        )
    return np.concatenate(
        [locations, np.ones((len(locations), 1))], 1
    ) @ np.linalg.pinv(points)


def anchored_tables(
    template: Sequence[Sequence[float]],
    shape: tuple[int, int],
    buckets: BucketSet,
    centers: np.ndarray,
    width: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Compute W and c that anchor every head at its own location.

    The locations are `spread_locations` of the upright image, one per head of a layer.

    Args:
      template: [K, 2], (x, y) of the keypoints in an upright image, in fractions of it.
      shape: (layers L, heads H).
      buckets: that tell directions apart: of method `product` or `cross`.
      centers: float32 [N, 2], (x, y) of the tokens, in the unit of the keypoints.
      width: s > 0, standard deviation of the Gaussian, in that unit.
    Returns: float32 [2K, L, H, num_buckets] and [L, H, num_buckets].
    Raises: ValueError: buckets without directions; a width that is not positive; a
      template as `location_weights`.
    """
    if not width > 0:
        raise ValueError(f"anchored_tables: width must be positive; got {width}.")
    if any(part.axes is None for part in buckets):
        raise ValueError(
            "anchored_tables: buckets must tell directions apart for a head to have "
            "an anchor; got distances alone; use method product or cross."
        )
    weights = location_weights(
        np.asarray(template), spread_locations(shape[0] * shape[1])
    )
    offsets = centers[None] - centers[:, None]  # [query, key, 2]
    means = [_bucket_means(part, offsets) for part in buckets]
    toward = np.concatenate([mean for mean, _ in means])  # [buckets, 2]
    squared = np.concatenate([square for _, square in means])

    kernel = np.einsum("hk,ba->kahb", weights, -toward / width**2)
    bias = np.broadcast_to(-squared / (2 * width**2), (*shape, len(squared)))
    kernel = kernel.reshape(2 * weights.shape[1], *shape, num_buckets(buckets))
    return kernel.astype(np.float32), bias.astype(np.float32)


def _bucket_means(part, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean offset [num_buckets, 2] and mean squared length [num_buckets] of a table.

    Zeros where no pair falls into the bucket. Of the table of one axis, the other
    axis' share of the squared length is the same everywhere and does not matter.
    """
    ids, size = part.ids.ravel(), part.num_buckets
    pairs = np.maximum(np.bincount(ids, minlength=size), 1)
    flat = offsets.reshape(-1, 2).astype(np.float64)
    sums = [np.bincount(ids, values, size) for values in (*flat.T, (flat**2).sum(-1))]
    x, y, squared = (values / pairs for values in sums)
    return np.stack([x, y], -1), squared
