"""Placed and distorted digits: whole ink, uniform places, keypoints on the ink."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.data import canvas, keypoints, store
from kprpe_jax.data.rows import read_all

# Compiled once per shape: much quicker than running each operation by itself.
place = jax.jit(canvas.place_on_canvas, static_argnames=("canvas_size", "mode"))
distort = jax.jit(canvas.distort_on_canvas, static_argnames=("canvas_size", "ranges"))


@pytest.fixture(scope="module")
def digits(digits_dir):
    source = read_all(store.open_split(digits_dir, "digits", "test"))
    rows = source.__getitems__(range(64))
    return np.stack([r["image"] for r in rows]), np.stack(
        [r["keypoints"] for r in rows]
    )


def blocks(count, box=(4, 6, 20, 25), channels=1):
    """Images with one bright block at (left, top, right, bottom), and its keypoints."""
    left, top, right, bottom = box
    images = np.zeros((count, 28, 28, channels), np.uint8)
    images[:, top:bottom, left:right] = 255
    return images, keypoints.box_keypoints(images)


def test_placed_images_are_the_old_ones_moved_by_the_offset_of_their_keypoints(digits):
    images, points = digits
    placed, moved = place(jax.random.key(0), images, points, canvas_size=40)
    assert placed.shape == (64, 40, 40, 3)
    assert placed.dtype == moved.dtype == jnp.float32
    offset = np.asarray(moved) * 40 - points * 28
    np.testing.assert_allclose(offset, np.rint(offset), atol=1e-4)
    for i in range(64):
        want = np.full((120, 120, 3), -1.0)
        x, y = np.rint(offset[i, 0]).astype(int) + 40
        want[y : y + 28, x : x + 28] = images[i] / 127.5 - 1
        np.testing.assert_allclose(placed[i], want[40:80, 40:80], atol=1e-6)
    assert (moved >= -1e-6).all()
    assert (moved <= 1 + 1e-6).all()


def test_offsets_are_uniform_over_all_that_keep_the_ink():
    images, points = blocks(4000)  # 16 x 19 in 40 x 40: 25 x 22 places
    _, moved = place(jax.random.key(1), images, points, canvas_size=40)
    corner = np.rint(np.asarray(moved[:, 0]) * 40).astype(int)
    for axis, places in ((0, 25), (1, 22)):
        count = np.bincount(corner[:, axis], minlength=places)
        assert len(count) == places
        expected = 4000 / places
        assert ((count - expected) ** 2 / expected).sum() < 2.5 * places  # chi-squared
    assert abs(np.corrcoef(corner.T)[0, 1]) < 0.08


def test_same_key_same_place_and_other_key_other_place(digits):
    first, again, other = (
        np.asarray(place(jax.random.key(k), *digits, canvas_size=40)[1])
        for k in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any(axis=(1, 2)).mean() > 0.9


def test_center_mode_leaves_a_border_of_six_as_affnist():
    images, points = blocks(2, channels=3)
    placed, moved = place(
        jax.random.key(0), images, points, canvas_size=40, mode="center"
    )
    want = np.pad(
        images / 127.5 - 1, ((0, 0), (6, 6), (6, 6), (0, 0)), constant_values=-1
    )
    np.testing.assert_allclose(placed, want, atol=1e-6)
    np.testing.assert_allclose(moved, (points * 28 + 6) / 40, atol=1e-6)


def test_a_block_larger_than_the_canvas_is_centered():
    images, points = blocks(3, box=(0, 2, 28, 26))
    for function, extra in ((place, {}), (distort, {"severity": 0.0})):
        _, moved = function(jax.random.key(0), images, points, canvas_size=20, **extra)
        np.testing.assert_allclose(moved[:, 2], 0.5, atol=0.5 / 20 + 1e-6)


def test_severity_zero_is_pure_translation(digits):
    images, points = digits
    warped, moved = distort(
        jax.random.key(3), images, points, canvas_size=40, severity=0.0
    )
    offset = np.rint(np.asarray(moved[:, 0]) * 40 - points[:, 0] * 28).astype(int)
    for i in range(64):
        want = np.full((120, 120, 3), -1.0)
        x, y = offset[i] + 40
        want[y : y + 28, x : x + 28] = images[i] / 127.5 - 1
        np.testing.assert_allclose(warped[i], want[40:80, 40:80], atol=1e-3)


@pytest.mark.parametrize("severity", [0.5, 1.0, 1.5])
def test_keypoints_follow_the_ink(severity):
    """Bright pixels lie inside the moved box and reach all of its four sides."""
    images, points = blocks(64, box=(6, 5, 20, 23))
    warped, moved = distort(
        jax.random.key(4), images, points, canvas_size=40, severity=severity
    )
    for image, p in zip(np.asarray(warped), np.asarray(moved) * 40, strict=True):
        np.testing.assert_allclose(p[2], p[[0, 1, 3, 4]].mean(axis=0), atol=1e-3)
        rows, cols = np.nonzero(image[..., 0] > 0)  # more than half covered
        inside = np.stack([cols + 0.5, rows + 0.5], 1) - p[0]
        # Coordinates along the box's two sides: 0..1 inside.
        along = np.linalg.solve(np.stack([p[1] - p[0], p[3] - p[0]], 1), inside.T)
        assert along.min() > -0.06
        assert along.max() < 1.06
        np.testing.assert_allclose(along.min(axis=1), 0, atol=0.08)
        np.testing.assert_allclose(along.max(axis=1), 1, atol=0.08)


@pytest.mark.parametrize("severity", [0.0, 1.0])
def test_all_ink_stays_inside_and_reaches_the_edges(severity):
    """The corners of a solid block are the extremes of its ink."""
    images, points = blocks(1000, box=(6, 5, 20, 23))
    placed, moved = distort(
        jax.random.key(5), images, points, canvas_size=40, severity=severity
    )
    moved = np.asarray(moved) * 40
    assert moved.min() > -2e-3
    assert moved.max() < 40 + 2e-3
    assert (moved.min(axis=1).min(axis=0) < 0.3).all()
    assert (moved.max(axis=1).max(axis=0) > 39.7).all()
    lit = np.asarray(placed[..., 0] > 0)
    for edge in (lit[:, 0], lit[:, -1], lit[:, :, 0], lit[:, :, -1]):
        assert edge.any()


def test_distortions_have_the_stated_ranges():
    """Recover angle, shear and expansions of each image from its keypoints."""
    images, points = blocks(3000, box=(8, 8, 20, 20))
    ranges = canvas.AffineRanges(rotation_degrees=30.0, shear=0.1, scale=(0.7, 1.1))
    _, moved = distort(
        jax.random.key(6), images, points, canvas_size=60, severity=0.5, ranges=ranges
    )
    p = np.asarray(moved) * 60
    linear = np.stack([p[:, 1] - p[:, 0], p[:, 3] - p[:, 0]], axis=-1) / 12
    # rotation @ shear @ scaling, undone from the left; shear leaves x alone.
    angle = np.arctan2(linear[:, 1, 0], linear[:, 0, 0])
    cos, sin = np.cos(angle), np.sin(angle)
    upright = (
        np.stack([np.stack([cos, sin], -1), np.stack([-sin, cos], -1)], 1) @ linear
    )
    found = {
        "angle": (np.rad2deg(angle), -15, 15),
        "shear": (upright[:, 0, 1] / upright[:, 1, 1], -0.05, 0.05),
        "x": (upright[:, 0, 0], 0.85, 1.05),
        "y": (upright[:, 1, 1], 0.85, 1.05),
    }
    for name, (values, low, high) in found.items():
        slack = 0.02 * (high - low)
        assert low - slack < values.min() < low + 2 * slack, name
        assert high - 2 * slack < values.max() < high + slack, name
        np.testing.assert_allclose(values.mean(), (low + high) / 2, atol=slack)
    corr = np.corrcoef([values for values, _, _ in found.values()]) - np.eye(4)
    assert np.abs(corr).max() < 0.08


@pytest.mark.parametrize("name", ["place_on_canvas", "distort_on_canvas"])
def test_wrong_shapes_and_modes_are_refused(name):
    function = getattr(canvas, name)
    images, points = blocks(2)
    key = jax.random.key(0)
    with pytest.raises(ValueError, match=rf"{name}: images .*got \(2, 28, 28\)"):
        function(key, images[..., 0], points, canvas_size=40)
    with pytest.raises(
        ValueError, match=rf"{name}: keypoints .*B = 2; got \(1, 5, 2\)"
    ):
        function(key, images, points[:1], canvas_size=40)
    with pytest.raises(ValueError, match=rf"{name}: canvas_size .*got 0"):
        function(key, images, points, canvas_size=0)
    if name == "place_on_canvas":
        with pytest.raises(ValueError, match="'random' or 'center'; got 'middle'"):
            function(key, images, points, canvas_size=40, mode="middle")
