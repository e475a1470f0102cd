"""A start for f(P): before anything is learned, every head looks at one keypoint.

f(P) is linear in the keypoints, and that is enough to look at one. With e = M_j - M_i,
a Gaussian of width s around keypoint P_k is, on the logits of any query i,

    -|M_j - P_k|^2 / 2s^2 = -|e|^2 / 2s^2 - e (M_i - P_k) / s^2 - |M_i - P_k|^2 / 2s^2

The last term is the same for all keys, so the softmax removes it. The first two are c
and D'W of Eq. 10 where e is the offset of the bucket d(i, j); buckets that join several
offsets take their mean. So f(P) can be such a head, and with tables that start at zero
it has to find that out.
"""

import numpy as np

from kprpe_jax.position.lookup import BucketSet, num_buckets


def gaze_tables(
    shape: tuple[int, int, int], buckets: BucketSet, centers: np.ndarray, width: float
) -> tuple[np.ndarray, np.ndarray]:
    """W and c with which every head looks at one keypoint.

    Heads take keypoints in turn, across layers; where there are more keypoints than
    heads, they are spread evenly.

    Args:
      shape: (keypoints K, layers L, heads H).
      buckets: that tell directions apart: of method `product` or `cross`.
      centers: float32 [N, 2], (x, y) of the tokens, in the unit of the keypoints.
      width: s > 0, standard deviation of the Gaussian, in that unit.
    Returns: float32 [2K, L, H, num_buckets] and [L, H, num_buckets].
    Raises: ValueError: buckets without directions; a width that is not positive.
    """
    if not width > 0:
        raise ValueError(f"gaze_tables: width must be positive; got {width}.")
    if any(part.axes is None for part in buckets):
        raise ValueError(
            "gaze_tables: buckets must tell directions apart for a head to look at a "
            "keypoint; got distances alone; use method product or cross."
        )
    count, layers, heads = shape
    offsets = centers[None] - centers[:, None]  # [query, key, 2]
    means = [_bucket_means(part, offsets) for part in buckets]
    toward = np.concatenate([mean for mean, _ in means])  # [buckets, 2]
    squared = np.concatenate([square for _, square in means])

    heads_in_all = layers * heads
    turn = np.arange(heads_in_all) * max(1, count // heads_in_all) % count
    kernel = np.zeros((count, 2, heads_in_all, num_buckets(buckets)), np.float32)
    kernel[turn, :, np.arange(heads_in_all)] = -toward.T / width**2
    bias = np.broadcast_to(-squared / (2 * width**2), (layers, heads, len(squared)))
    return kernel.reshape(2 * count, layers, heads, -1), bias.astype(np.float32)


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
