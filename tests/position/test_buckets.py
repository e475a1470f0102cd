import math

import numpy as np
import pytest

from kprpe_jax.position.buckets import METHODS, compute_buckets, patch_centers

GRIDS = ((1, 1), (2, 5), (5, 9), (8, 8), (14, 3))
RATIOS = (0.6, 1.0, 1.9, 2.7)


def squeeze(distance: float, ratio: float) -> int:
    """The piecewise index, one number at a time, in double precision."""
    alpha, beta, gamma = ratio, 2 * ratio, 8 * ratio
    size = abs(distance)
    if size <= alpha:
        return round(distance)
    share = math.log(size / alpha) / math.log(gamma / alpha)
    return int(
        math.copysign(min(round(alpha + share * (beta - alpha)), beta), distance)
    )


def oracle(grid, method, ratio, part):
    """d(i, j) by loops over queries and keys."""
    rows, columns = grid
    beta = int(2 * ratio)
    table = np.empty((rows * columns,) * 2, int)
    for i in range(rows * columns):
        for j in range(rows * columns):
            down = i // columns - j // columns
            right = i % columns - j % columns
            row, column = squeeze(down, ratio) + beta, squeeze(right, ratio) + beta
            table[i, j] = {
                "product": row * (2 * beta + 1) + column,
                "cross": (row, column)[part],
                "euclidean": squeeze(round(math.hypot(down, right)), ratio) + beta,
                "quantized": squeeze(down**2 + right**2, ratio) + beta,
            }[method]
    return table


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("grid", GRIDS)
def test_equal_to_loops(grid, method):
    for ratio in RATIOS:
        parts = compute_buckets(grid, method, ratio)
        assert len(parts) == (2 if method == "cross" else 1)
        side = 2 * int(2 * ratio) + 1
        for number, part in enumerate(parts):
            want = oracle(grid, method, ratio, number)
            np.testing.assert_array_equal(part.ids, want, err_msg=f"ratio {ratio}")
            assert part.ids.dtype == np.int32
            assert part.num_buckets == (side**2 if method == "product" else side)
            assert part.ids.min() >= 0
            assert part.ids.max() < part.num_buckets
            if part.axes:
                by_row, by_column, size = part.axes
                i, j = np.indices(part.ids.shape)
                joined = by_row[i // grid[1], j // grid[1]] * size
                joined += by_column[i % grid[1], j % grid[1]]
                np.testing.assert_array_equal(part.ids, joined)


def test_paper_size_and_direction():
    (buckets,) = compute_buckets((14, 14), "product", 1.9)
    assert buckets.num_buckets == 49
    ids = buckets.ids
    assert ids[0, 0] == 24  # distance zero is the middle bucket
    assert ids[1, 0] == 25  # query right of key: one column up
    assert ids[14, 0] == 31  # query below key: one row of 7 up


def test_tables_are_read_only():
    with pytest.raises(ValueError, match="read-only"):
        compute_buckets((3, 3))[0].ids[0, 0] = 1


def test_patch_centers_are_x_y_row_major():
    want = [((c + 0.5) / 3, (r + 0.5) / 2) for r in range(2) for c in range(3)]
    np.testing.assert_allclose(patch_centers((2, 3)), want, rtol=1e-6)


def test_equal_arguments_give_one_object():
    """Buckets are hashed by identity, so another object would compile again."""
    one = compute_buckets((5, 5))
    assert compute_buckets([5, 5], method="product", ratio=1.9) is one


def test_errors():
    with pytest.raises(ValueError, match="at least one row and one column; got 7;"):
        compute_buckets([7])
    with pytest.raises(ValueError, match="at least one row and one column; got 0 x 4"):
        compute_buckets((0, 4))
    with pytest.raises(ValueError, match="unknown method 'manhattan'; use one of"):
        compute_buckets((4, 4), "manhattan")
    with pytest.raises(ValueError, match="ratio must be positive; got -1"):
        compute_buckets((4, 4), ratio=-1)
