"""Windows: cutting undone, places and masks against what their words say."""

import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.layers.windows import (
    merge,
    pair_mask,
    partition,
    plan_windows,
    token_places,
)

CASES = [  # grid, window
    ((4, 6), (2, 3)),
    ((5, 7), (3, 2)),
    ((5, 5), (4, 4)),
    ((3, 8), (5, 4)),  # one window longer than its axis
    ((1, 1), (2, 2)),
    ((3, 4, 5), (2, 4, 3)),
]


@pytest.mark.slow
@pytest.mark.parametrize("cut", [True, False])
@pytest.mark.parametrize("shifted", [True, False])
@pytest.mark.parametrize(("grid", "window"), CASES, ids=str)
def test_windows(grid, window, shifted, cut):
    plan = plan_windows(grid, window, shifted=shifted, cut=cut)
    for g, w, w_plan, s in zip(grid, window, plan.window, plan.shift, strict=True):
        assert w_plan == (min(g, w) if cut else w)
        assert s == (w_plan // 2 if shifted and g > w_plan else 0)

    maps = np.random.default_rng(0).normal(size=(2, *grid, 3)).astype(np.float32)
    windows = np.asarray(partition(jnp.asarray(maps), plan))
    np.testing.assert_array_equal(merge(jnp.asarray(windows), plan), maps)

    places = token_places(plan)
    inside = (places < np.array(grid)).all(-1)
    assert inside.sum() == np.prod(grid)
    for n, token in np.ndindex(places.shape[:2]):
        want = 0.0
        if inside[n, token]:
            want = maps[(slice(None), *places[n, token])]
        np.testing.assert_array_equal(windows[:, n, token], want)

    # Those of a window that are not neighbors in the map were brought there by the
    # roll.
    apart = np.abs(places[:, :, None] - places[:, None])
    near = (apart < np.array(plan.window)).all(-1)
    np.testing.assert_array_equal(pair_mask(plan, mask_padding=False), near)
    masked = pair_mask(plan, mask_padding=True)
    assert masked.any(-1).all()  # no empty softmax
    want = near & inside[:, None]
    np.testing.assert_array_equal(masked[inside], want[inside])


def test_bad_sizes():
    with pytest.raises(ValueError, match="one positive size per axis"):
        plan_windows((4, 4), (2,), shifted=False, cut=True)
    with pytest.raises(ValueError, match=r"got \(0, 4\)"):
        plan_windows((0, 4), (2, 2), shifted=False, cut=True)
