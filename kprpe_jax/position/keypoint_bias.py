"""The keypoint bias f(P) of KP-RPE, as pure functions of keypoints and weights.

f(P) is linear in D' = M - P (Eq. 8-10), so the bias splits into a part that all images
share and a small part per image (P' and M' are keypoints and patch centers, flattened
over x, y and keypoint):

    B[b,h,i,j] = sum_p (M'[i,p] - P'[b,p]) W[p,h,d(i,j)] + c[h,d(i,j)]
               = A[h,i,d(i,j)] - g[b,h,d(i,j)],   A = M'W + c,   g = P'W

`g` has num_buckets numbers per image and head; the [B, H, N, num_buckets] table of the
direct form never exists, and its gradient is a sum over buckets.

`keypoint_bias` is all of it in one call; attention layers read the tables themselves.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kprpe_jax.position.buckets import compute_buckets, patch_centers
from kprpe_jax.position.lookup import lookup, lookup_rows, num_buckets

# A - g is a difference of places. Products that accelerators round, to the 8 bits of
# bfloat16 on TPUs, would move a keypoint by up to a 512th of the image.
_EXACT = jax.lax.Precision.HIGHEST


def keypoint_bias(
    kernel: Array,
    bias: Array,
    keypoints: Array,
    grid: Sequence[int],
    *,
    method: str = "product",
    ratio: float = 1.9,
) -> Array:
    """B_ij = f(P)[i, d(i, j)], what KP-RPE adds to the attention logits.

    The official code adds it to q k / sqrt(head_dim); Eq. 5 divides it by that root,
    too. Gradients to all three arrays are of reverse mode, see `lookup`.

    Source: KP-RPE, Eq. 7-11, relative f(P).
    Args:
      kernel: float32 [2K, H, num_buckets], W; first axis (x1, y1, x2, y2, ...). H = 1
        where heads share. Layers are further axes after the first.
      bias: float32 [H, num_buckets], c; zeros in the paper.
      keypoints: float32 [B, K, 2], (x, y) in fractions of the image.
      grid: (rows, columns) of tokens, N in all, row by row.
      method, ratio: of `compute_buckets`, which gives num_buckets (49 as they stand).
    Returns: float32 [B, H, N, N], query i, key j; axes of layers stand first.
    Raises: ValueError: sizes that do not fit each other; as `compute_buckets`.
    """
    buckets = compute_buckets(grid, method, ratio)
    fits = kernel.shape[1:] == bias.shape and len(kernel) and not len(kernel) % 2
    if not fits or bias.shape[-1] != num_buckets(buckets):
        raise ValueError(
            "keypoint_bias: kernel must be [2K, ..., H, num_buckets] and bias [..., H, "
            f"num_buckets], with {num_buckets(buckets)} buckets here; got "
            f"{kernel.shape} and {bias.shape}; make both for this method and ratio."
        )
    rows = grid_table(kernel, bias, patch_centers(grid))
    shared = keypoint_table(kernel, keypoints)
    return lookup_rows(rows, buckets)[..., None, :, :, :] - lookup(shared, buckets)


def grid_table(kernel: Array, bias: Array, centers: np.ndarray) -> Array:
    """A = M'W + c: what a query's place adds, the same for all images.

    Source: KP-RPE, Eq. 8-11, the part without keypoints.
    Args:
      kernel: float32 [2K, ..., num_buckets], W; first axis (x1, y1, x2, y2, ...).
      bias: float32 [..., num_buckets], c.
      centers: float32 [N, 2], (x, y) of patch centers in 0..1.
    Returns: float32 [..., N, num_buckets].
    """
    by_axis = kernel.reshape(len(kernel) // 2, 2, *kernel.shape[1:]).sum(
        0
    )  # M repeats per keypoint
    table = jnp.einsum("np,p...k->...nk", centers, by_axis, precision=_EXACT)
    return table + bias[..., None, :]


def keypoint_table(kernel: Array, keypoints: Array) -> Array:
    """g = P'W: what the keypoints take away, the same for all queries.

    Source: KP-RPE, Sec. 3.2, absolute f(P); and Eq. 8-11, the part with keypoints.
    Args:
      kernel: float32 [2K, ..., H, num_buckets].
      keypoints: float32 [B, K, 2], (x, y) in fractions of the image.
    Returns: float32 [..., B, H, num_buckets].
    Raises: ValueError: another number of keypoints than the kernel is for.
    """
    _check_keypoints("keypoint_table", kernel, keypoints)
    flat = keypoints.astype(jnp.float32).reshape(keypoints.shape[0], len(kernel))
    return jnp.einsum("bp,p...hk->...bhk", flat, kernel, precision=_EXACT)


def relative_keypoints(keypoints: Array, centers: np.ndarray) -> Array:
    """D' = reshape(M - P): every patch center relative to every keypoint.

    Source: KP-RPE, Eq. 8 and 9.
    Args:
      keypoints: float32 [B, K, 2].
      centers: float32 [N, 2].
    Returns: float32 [B, N, 2K], last axis (x1, y1, x2, y2, ...).
    """
    difference = centers[:, None, :] - keypoints.astype(jnp.float32)[:, None]
    return difference.reshape(*difference.shape[:2], -1)


def direct_table(
    kernel: Array, bias: Array, keypoints: Array, centers: np.ndarray
) -> Array:
    """f(P) = D'W + c with a table per image and query, as the paper writes it.

    Equal to `grid_table - keypoint_table`; kept for measuring what the split saves.

    Source: KP-RPE, Eq. 10.
    Args and Raises: as `grid_table` and `keypoint_table`.
    Returns: float32 [..., B, H, N, num_buckets].
    """
    _check_keypoints("direct_table", kernel, keypoints)
    relative = relative_keypoints(keypoints, centers)
    table = jnp.einsum("bnp,p...hk->...bhnk", relative, kernel, precision=_EXACT)
    return table + bias[..., None, :, None, :]


def _check_keypoints(name: str, kernel: Array, keypoints: Array) -> None:
    """Raise ValueError unless the kernel is for as many keypoints."""
    if keypoints.ndim != 3 or keypoints.shape[1:] != (len(kernel) / 2, 2):
        raise ValueError(
            f"{name}: keypoints must be [B, K, 2] for a kernel of 2K = {len(kernel)} "
            f"rows; got {keypoints.shape}; give a keypoint per two rows."
        )
