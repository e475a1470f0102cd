import numpy as np
import pytest

from kprpe_jax.position.keypoint_bias import keypoint_bias
from kprpe_jax.training.merge import merge, resize_grid

SPEC = "runs/a@last"


def arrays(rng, **shapes):
    return {
        name.replace("__", "/"): rng.normal(size=shape).astype(np.float32)
        for name, shape in shapes.items()
    }


def test_paths_of_one_shape_are_taken_and_the_rest_is_told(rng):
    stored = arrays(rng, params__a=(3, 4), params__b=(2,), params__old=(1,))
    wanted = arrays(rng, params__a=(3, 4), params__b=(2,), params__table=(5,))
    merged = merge(stored, wanted, spec=SPEC)
    assert set(merged.arrays) == {"params/a", "params/b"}
    np.testing.assert_array_equal(merged.arrays["params/a"], stored["params/a"])
    assert merged.describe() == [
        "taken: 2 arrays (1.4e-05 M numbers)",
        "new: params/table",
        "left aside: params/old",
    ]


def keys_weight(distance):
    """Cubic of Keys with a = -1/2, at a distance in cells."""
    d = abs(distance)
    if d < 1:
        return 1.5 * d**3 - 2.5 * d**2 + 1
    return -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2 if d < 2 else 0.0


def resize_axis(values, size):
    """[n, ...] -> [size, ...]; weights at the border sum to one."""
    count, rows = len(values), []
    for i in range(size):
        place = (i + 0.5) * count / size - 0.5
        weights = np.array([keys_weight(place - j) for j in range(count)])
        rows.append(np.tensordot(weights / weights.sum(), values, 1))
    return np.array(rows)


@pytest.mark.parametrize(("old", "new"), [((4, 5), (7, 9)), ((6, 6), (3, 4))])
def test_a_position_embedding_is_resized_bicubic(rng, old, new):
    values = rng.normal(size=(old[0] * old[1], 3))
    got = resize_grid(values, old, new)
    rows = resize_axis(values.reshape(*old, 3), new[0])
    want = resize_axis(rows.swapaxes(0, 1), new[1]).swapaxes(0, 1)
    np.testing.assert_allclose(got.reshape(*new, 3), want, atol=1e-5)
    same = resize_grid(values, old, old)
    np.testing.assert_allclose(same, values, atol=1e-6)


def test_a_head_of_another_grid_gives_the_same_for_constant_maps(rng):
    path, old, new = "params/backbone/head/linear1/kernel", (3, 4), (5, 6)
    stored = {path: rng.normal(size=(12 * 2, 7)).astype(np.float32)}
    wanted = {path: np.zeros((30 * 2, 7), np.float32)}
    merged = merge(stored, wanted, spec=SPEC, grids=(old, new))
    token = rng.normal(size=2)
    got = np.tile(token, 30) @ merged.arrays[path]
    # Borders count a little less, cell by cell: not the sum of the cells is kept.
    want = np.tile(token, 12) @ stored[path]
    assert np.abs(got - want).max() < 0.2 * np.abs(stored[path]).sum(0).max()
    flat = {path: np.ones((24, 7), np.float32)}
    whole = merge(flat, wanted, spec=SPEC, grids=(old, new)).arrays[path]
    np.testing.assert_allclose(
        np.tile(token, 30) @ whole, np.tile(token, 12) @ flat[path], rtol=1e-5
    )
    assert merged.describe()[1] == f"resized from 3 x 4 to 5 x 6 tokens: {path}"


def test_more_keypoints_leave_the_bias_as_it_is(rng):
    path = "params/bias_tables/kernel"
    kernel = rng.normal(size=(10, 1, 2, 49)).astype(np.float32)
    bias = rng.normal(size=(1, 2, 49)).astype(np.float32)
    wanted = {path: np.zeros((34, 1, 2, 49), np.float32)}
    grown = merge({path: kernel}, wanted, spec=SPEC).arrays[path]
    points = rng.random((3, 17, 2)).astype(np.float32)
    before = keypoint_bias(kernel, bias, points[:, :5], (4, 4))
    after = keypoint_bias(grown, bias, points, (4, 4))
    np.testing.assert_allclose(after, before, atol=1e-5)
    with pytest.raises(ValueError, match=r"of 17 keypoints do not shrink to 5: the b"):
        merge({path: grown}, {path: kernel}, spec=SPEC)


def test_blocks_are_stacked_and_unstacked(rng):
    unrolled = arrays(rng, **{f"params__blocks_{n}__k": (2, 3) for n in range(11)})
    stacked = np.stack([unrolled[f"params/blocks_{n}/k"] for n in range(11)])
    merged = merge(unrolled, {"params/blocks/k": stacked}, spec=SPEC)
    np.testing.assert_array_equal(merged.arrays["params/blocks/k"], stacked)
    back = merge(merged.arrays, unrolled, spec=SPEC)
    for path, array in unrolled.items():
        np.testing.assert_array_equal(back.arrays[path], array)


def test_class_centers_are_padded_for_another_mesh(rng):
    stored = arrays(rng, params__class_centers=(6, 3), params__a=(9,))
    wanted = {**stored, "params/class_centers": np.zeros((8, 3), np.float32)}
    merged = merge(stored, wanted, spec=SPEC, num_classes=5)
    rows = merged.arrays["params/class_centers"]
    np.testing.assert_array_equal(rows[:5], stored["params/class_centers"][:5])
    assert np.abs(rows).sum(-1).all()


def test_weights_of_another_network(rng):
    stored = arrays(rng, params__x=(3,), params__head__kernel=(8, 4))
    wanted = arrays(rng, params__y=(3,), params__z=(3,))
    with pytest.raises(ValueError, match=r"runs/a@last: .* none of their 2 arrays h"):
        merge(stored, wanted, spec=SPEC)
    wanted = arrays(rng, params__x=(3,), params__head__kernel=(2, 4))
    with pytest.raises(
        ValueError, match=r"kernel is \[8, 4\] there and \[2, 4\] here; .* image_size"
    ):
        merge(stored, wanted, spec=SPEC)
    wanted = arrays(rng, params__x=(3,))  # most of the weights find no place
    with pytest.raises(ValueError, match=r"; 1 of their 2 arrays have a .*head/kernel"):
        merge(stored, wanted, spec=SPEC)
