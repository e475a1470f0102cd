"""Relative-position buckets d(i, j): which row of a bias table a query-key pair reads.

The tables are NumPy constants: they depend on the grid alone and are folded into the
compiled program.

Source: KP-RPE, Fig. 3 and Eq. 6; the piecewise index function of iRPE (its [74]).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from kprpe_jax.core.checks import check_option

METHODS = ("product", "euclidean", "quantized", "cross")


@dataclass(frozen=True, eq=False)  # hashed by identity: a static argument under jit
class Buckets:
    """One table of bucket ids.

    Attributes:
      ids: int32 [N, N], row = query i, column = key j, tokens row-major;
        values in [0, num_buckets).
      num_buckets: rows of the bias table that `ids` reads.
      axes: where rows and columns of the grid are told apart, ids of both axes, int32
        [R, R] and [C, C], and how many there are of the second:
        ids[i, j] = rows[i's row, j's row] * num_columns + columns[i's, j's column].
    """

    ids: np.ndarray
    num_buckets: int
    axes: tuple[np.ndarray, np.ndarray, int] | None = None


def piecewise_index(distance: np.ndarray, ratio: float) -> np.ndarray:
    """Keep small distances, squeeze large ones logarithmically.

    With alpha = ratio, beta = 2 ratio, gamma = 8 ratio: |v| <= alpha stays; beyond,
    sign(v) min(round(alpha + log(|v| / alpha) (beta - alpha)), beta), where the
    logarithm has base gamma / alpha,
    truncated to an integer. Rounding is half to even, in float32; beta is not rounded
    before the minimum, so the largest index is int(beta).

    Args:
      distance: any shape, signed distance in tokens.
      ratio: alpha, > 0.
    Returns: int32, same shape, in [-int(2 ratio), int(2 ratio)].
    """
    value = np.asarray(distance, np.float32)
    magnitude = np.abs(value)
    alpha, beta, gamma = ratio, 2 * ratio, 8 * ratio
    log_ratio = np.log(np.maximum(magnitude, np.float32(alpha)) / np.float32(alpha))
    log_ratio /= np.float32(np.log(gamma / alpha))
    squeezed = np.round(np.float32(alpha) + log_ratio * np.float32(beta - alpha))
    squeezed = np.sign(value) * np.minimum(squeezed, np.float32(beta))
    index = np.where(magnitude <= np.float32(alpha), np.round(value), squeezed)
    return np.trunc(index).astype(np.int32)


def compute_buckets(
    grid: Sequence[int], method: str = "product", ratio: float = 1.9
) -> tuple[Buckets, ...]:
    """Bucket ids of all query-key pairs of a token grid.

    `product` keeps the direction: (2 int(2 ratio) + 1)^2 buckets, 49 at ratio 1.9.
    `euclidean` quantizes the rounded distance, `quantized` the squared distance; both
    use the upper half of their 2 int(2 ratio) + 1 buckets. `cross` gives two tables,
    rows and columns, whose biases are added.

    Args:
      grid: (rows, columns) of tokens, not necessarily square.
      method: one of METHODS.
      ratio: > 0; distances up to it keep their own bucket.
    Returns: one `Buckets`, two for `cross`; the arrays are read-only. Equal arguments
      give the same object, so that it does for a static argument under `jax.jit`.
    Raises: ValueError: a grid that is not two positive sizes, unknown method, ratio not
      positive.
    """
    grid = tuple(grid)
    if len(grid) != 2 or min(grid) < 1:
        raise ValueError(
            f"compute_buckets: the token grid must have at least one row and one "
            f"column; got {' x '.join(map(str, grid))}; check image_size and "
            "patch_size."
        )
    check_option("compute_buckets", "method", method, METHODS)
    if not ratio > 0:
        raise ValueError(f"compute_buckets: ratio must be positive; got {ratio}.")
    return _compute_buckets(grid, method, ratio)


@lru_cache(maxsize=64)
def _compute_buckets(
    grid: tuple[int, int], method: str, ratio: float
) -> tuple[Buckets, ...]:
    row_diff, column_diff = (
        np.arange(size)[:, None] - np.arange(size)
        for size in grid  # query minus key
    )
    beta = int(2 * ratio)
    side = 2 * beta + 1

    def index(distance: np.ndarray) -> np.ndarray:
        return piecewise_index(distance, ratio) + beta

    if method == "product":
        return (_join_axes(index(row_diff), index(column_diff), side, side),)
    if method == "cross":
        return (
            _join_axes(index(row_diff), np.zeros_like(column_diff), side, 1),
            _join_axes(np.zeros_like(row_diff), index(column_diff), 1, side),
        )
    squared = _over_pairs(row_diff**2, column_diff**2).astype(np.float32)
    if method == "euclidean":
        squared = np.round(np.sqrt(squared))
    return (Buckets(_freeze(index(squared)), side),)


def _join_axes(
    rows: np.ndarray, columns: np.ndarray, num_rows: int, num_columns: int
) -> Buckets:
    axes = (_freeze(rows), _freeze(columns), num_columns)
    ids = _freeze(_over_pairs(rows * num_columns, columns))
    return Buckets(ids, num_rows * num_columns, axes)


def _over_pairs(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Sum of a number per pair of rows and one per pair of columns: [N, N]."""
    pairs = rows[:, None, :, None] + columns[None, :, None, :]
    return pairs.reshape((rows.shape[0] * columns.shape[0],) * 2)


def _freeze(ids: np.ndarray) -> np.ndarray:
    ids = np.ascontiguousarray(ids, np.int32)
    ids.setflags(write=False)  # the cache hands the same array to every caller
    return ids


def patch_centers(grid: Sequence[int]) -> np.ndarray:
    """Mesh grid M of patch centers, in fractions of the image.

    Source: KP-RPE, Eq. 8.
    Args:
      grid: (rows, columns) of tokens.
    Returns: float32 [N, 2], (x, y) in (0, 1), row-major.
    """
    rows, columns = grid
    y, x = np.meshgrid(
        (np.arange(rows) + 0.5) / rows,
        (np.arange(columns) + 0.5) / columns,
        indexing="ij",
    )
    return np.stack([x, y], axis=-1).reshape(-1, 2).astype(np.float32)
