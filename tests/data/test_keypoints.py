"""Boxes, marks and perturbations of keypoints against loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.data import keypoints as kp
from kprpe_jax.geometry.marks import draw_keypoints


def slow_box(image, threshold):
    height, width, _ = image.shape
    ink = [p for p in np.ndindex(height, width) if (image[p] > threshold).any()]
    if not ink:
        ink = [(0, 0), (height - 1, width - 1)]
    top, bottom = min(r for r, _ in ink), max(r for r, _ in ink) + 1
    left, right = min(c for _, c in ink), max(c for _, c in ink) + 1
    x, y = (left + right) / 2, (top + bottom) / 2
    box = [(left, top), (right, top), (x, y), (left, bottom), (right, bottom)]
    return np.array(box) / [width, height]


@pytest.mark.parametrize("channels", [1, 3])
def test_box_equals_the_loop_in_numpy_jax_and_jit(rng, channels):
    images = (rng.random((20, 9, 12, channels)) > 0.97) * 200
    images = images.astype(np.uint8)
    images[0] = 0  # no ink: the whole image
    images[1] = 32  # the threshold itself is not ink
    want = np.stack([slow_box(image, 32) for image in images])
    got = kp.box_keypoints(images)
    assert isinstance(got, np.ndarray)
    for points in (
        got,
        kp.box_keypoints(jnp.asarray(images)),
        jax.jit(kp.box_keypoints)(images),
    ):
        assert points.dtype == np.float32
        np.testing.assert_allclose(points, want, atol=1e-6)


def test_box_of_images_in_another_range(rng):
    images = rng.integers(0, 256, (4, 8, 8, 1)) * (rng.random((4, 8, 8, 1)) > 0.9)
    np.testing.assert_allclose(
        kp.box_keypoints(images / 127.5 - 1, threshold=32.5 / 127.5 - 1),
        kp.box_keypoints(images),
    )


def test_drawn_discs_equal_the_loop(rng):
    images = rng.uniform(-1, 0, size=(3, 10, 14, 3)).astype(np.float32)
    points = rng.uniform(-0.2, 1.2, size=(3, 4, 2)).astype(np.float32)
    want = images.copy()
    for b, row, col in np.ndindex(3, 10, 14):
        for x, y in points[b] * [14, 10]:
            if (col + 0.5 - x) ** 2 + (row + 0.5 - y) ** 2 <= 1.7**2:
                want[b, row, col] = 0.75
    draw = jax.jit(draw_keypoints, static_argnames=("radius", "value"))
    got = draw(images, points, radius=1.7, value=0.75)
    np.testing.assert_allclose(got, want)
    assert (want == 0.75).any()


def test_drawing_keeps_the_type_and_ignores_points_far_outside():
    images = jnp.zeros((1, 6, 6, 1), jnp.bfloat16)
    far = jnp.full((1, 5, 2), 3.0)
    drawn = draw_keypoints(images, far, radius=2.0)
    assert drawn.dtype == jnp.bfloat16
    assert not drawn.any()


def test_perturbation_by_scale_is_equation_12(rng):
    points = jnp.asarray(rng.random((2, 5, 2)), jnp.float32)
    got = kp.perturb_keypoints(jax.random.key(0), points, alpha=0.1)
    np.testing.assert_allclose(got, np.asarray(points) * 1.1, rtol=1e-6)


def test_uniform_perturbation_fills_its_range_independently():
    points = jnp.full((2000, 5, 2), 0.5)
    key = jax.random.key(0)
    got = kp.perturb_keypoints(key, points, alpha=0.1, noise="uniform")
    factor = np.asarray(got) / 0.5 - 1
    assert np.abs(factor).max() <= 0.1 + 1e-6
    np.testing.assert_allclose(factor.mean(axis=0), 0, atol=0.006)
    np.testing.assert_allclose(factor.std(axis=0), 0.1 / np.sqrt(3), rtol=0.05)
    corr = np.corrcoef(factor.reshape(2000, 10).T) - np.eye(10)
    assert np.abs(corr).max() < 0.1
    again = kp.perturb_keypoints(key, points, alpha=0.1, noise="uniform")
    np.testing.assert_array_equal(got, again)


def test_unknown_noise_is_refused():
    with pytest.raises(ValueError, match="'scale' or 'uniform'; got 'gauss'"):
        kp.perturb_keypoints(
            jax.random.key(0), jnp.ones((1, 2)), alpha=1, noise="gauss"
        )
