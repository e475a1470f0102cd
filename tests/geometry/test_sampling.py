"""Bilinear sampling against a loop over pixels, and its gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from kprpe_jax.geometry import affine, sampling


def slow_sample(images, points):
    """Sum over the four neighbors, each skipped when it is outside."""
    batch, height, width, channels = images.shape
    out = np.zeros((*points.shape[:-1], channels))
    for place in np.ndindex(points.shape[:-1]):
        x, y = points[place]
        for col in (int(np.floor(x)), int(np.floor(x)) + 1):
            for row in (int(np.floor(y)), int(np.floor(y)) + 1):
                if 0 <= col < width and 0 <= row < height:
                    weight = (1 - abs(x - col)) * (1 - abs(y - row))
                    out[place] += weight * images[place[0], row, col]
    return out


@pytest.mark.parametrize("shape", [(1, 5, 7, 3), (2, 4, 4, 1), (3, 1, 1, 2)])
def test_equals_the_loop_inside_at_the_border_and_far_outside(rng, shape):
    images = rng.normal(size=shape)
    points = rng.uniform(-3, 9, size=(shape[0], 6, 5, 2))
    points[:, 0, 0] = 0  # exactly the first pixel
    points[:, 0, 1] = (shape[2] - 1, shape[1] - 1)  # exactly the last
    points[:, 0, 2] = (shape[2], shape[1])  # exactly one further out
    points[:, 0, 3] = (-1, -1)
    points[:, 0, 4] = (1e6, -1e6)
    got = sampling.sample_bilinear(jnp.asarray(images), jnp.asarray(points))
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, slow_sample(images, points), atol=1e-5)


def test_gradients_in_images_and_points_equal_finite_differences(rng):
    images = jnp.asarray(rng.normal(size=(2, 5, 6, 2)), jnp.float32)
    # Away from whole numbers, where the slope jumps.
    points = rng.integers(-1, 6, size=(2, 3, 4, 2)) + rng.uniform(
        0.2, 0.8, (2, 3, 4, 2)
    )
    points = jnp.asarray(points, jnp.float32)
    check_grads(
        sampling.sample_bilinear, (images, points), 1, ["rev"], 1e-2, 1e-2, eps=1e-2
    )


def test_uint8_images_are_not_rounded():
    images = jnp.array([[[[0], [255]]]], jnp.uint8)
    got = sampling.sample_bilinear(images, jnp.array([[[[0.5, 0.0]]]]))
    np.testing.assert_allclose(got, [[[[127.5]]]])


def test_warp_by_whole_pixels_moves_the_content(rng):
    images = rng.normal(size=(2, 4, 5, 1)).astype(np.float32)
    # The content moves by (2, 1): the output-to-input map is the inverse.
    matrix = affine.invert(affine.translation(jnp.array([[2.0, 1.0]] * 2)))
    got = sampling.warp_affine(jnp.asarray(images), matrix, out_size=(6, 8))
    want = np.zeros((2, 6, 8, 1), np.float32)
    want[:, 1:5, 2:7] = images
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_warp_by_a_quarter_turn_about_the_center_is_rot90(rng):
    images = rng.normal(size=(1, 6, 6, 2)).astype(np.float32)
    matrix = affine.invert(affine.rotation(90.0, jnp.array([[3.0, 3.0]])))
    got = sampling.warp_affine(jnp.asarray(images), matrix, out_size=(6, 6))
    want = np.rot90(images, k=-1, axes=(1, 2))  # clockwise to the eye
    np.testing.assert_allclose(got, want, atol=1e-4)


def test_warp_matches_the_loop_at_the_mapped_pixel_centers(rng):
    images = rng.normal(size=(2, 5, 4, 1))
    matrix = rng.normal(size=(2, 2, 3)) + np.eye(2, 3)
    points = np.empty((2, 3, 6, 2))
    for b, row, col in np.ndindex(2, 3, 6):
        center = [col + 0.5, row + 0.5]
        points[b, row, col] = matrix[b, :, :2] @ center + matrix[b, :, 2] - 0.5
    got = jax.jit(sampling.warp_affine, static_argnames="out_size")(
        jnp.asarray(images), jnp.asarray(matrix, jnp.float32), out_size=(3, 6)
    )
    np.testing.assert_allclose(got, slow_sample(images, points), atol=1e-4)


def test_shapes_that_do_not_fit_are_named():
    images = jnp.zeros((2, 4, 4, 1))
    with pytest.raises(ValueError, match=r"points \[B, h, w, 2\]; got .*\(2, 4, 4\)"):
        sampling.sample_bilinear(images, jnp.zeros((2, 4, 4)))
    with pytest.raises(ValueError, match="same batch size; got 2 and 3"):
        sampling.sample_bilinear(images, jnp.zeros((3, 4, 4, 2)))
