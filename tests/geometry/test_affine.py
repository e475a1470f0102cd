"""Affine matrices against written-out coordinates and homogeneous NumPy algebra."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.geometry import affine


def homogeneous(matrix) -> np.ndarray:
    return np.vstack([np.asarray(matrix, np.float64), [0, 0, 1]])


@pytest.mark.parametrize(
    ("matrix", "point", "want"),
    [
        (affine.translation(jnp.array([2.0, -1.0])), (3, 4), (5, 3)),
        # y points down: a quarter turn takes +x to +y.
        (affine.rotation(90.0, jnp.array([1.0, 1.0])), (3, 1), (1, 3)),
        (affine.shear(0.5, jnp.array([1.0, 2.0])), (4, 6), (6, 6)),
        (affine.scaling(jnp.array([2.0, 0.5]), jnp.array([1.0, 2.0])), (3, 6), (5, 4)),
    ],
)
def test_elementary_maps_move_a_point_as_drawn_on_paper(matrix, point, want):
    got = affine.apply(matrix, jnp.array([point], jnp.float32))
    np.testing.assert_allclose(got, [want], atol=1e-5)


def test_center_stays_in_place_and_batches_keep_their_axes(rng):
    center = rng.normal(size=(3, 2))
    angle = rng.normal(size=3) * 40
    for matrix in (
        affine.rotation(angle, center),
        affine.shear(angle, center),
        affine.scaling(rng.normal(size=(3, 2)), center),
        affine.rotation(30.0, center),
    ):
        assert matrix.shape == (3, 2, 3)
        assert matrix.dtype == jnp.float32
        moved = affine.apply(matrix, jnp.asarray(center, jnp.float32)[:, None])
        np.testing.assert_allclose(moved[:, 0], center, atol=1e-4)


def test_compose_applies_from_first_to_last(rng):
    parts = [jnp.asarray(rng.normal(size=(2, 3)), jnp.float32) for _ in range(3)]
    want = homogeneous(parts[2]) @ homogeneous(parts[1]) @ homogeneous(parts[0])
    np.testing.assert_allclose(affine.compose(*parts), want[:2], atol=1e-5)


def test_compose_broadcasts_one_matrix_over_a_batch(rng):
    many = jnp.asarray(rng.normal(size=(4, 2, 3)), jnp.float32)
    one = jnp.asarray(rng.normal(size=(2, 3)), jnp.float32)
    np.testing.assert_allclose(
        affine.compose(many, one)[2], affine.compose(many[2], one), atol=1e-6
    )
    np.testing.assert_allclose(
        affine.compose(one, many)[2], affine.compose(one, many[2]), atol=1e-6
    )


def test_invert_is_the_matrix_inverse(rng):
    matrix = jnp.asarray(rng.normal(size=(5, 2, 3)) + np.eye(2, 3) * 3, jnp.float32)
    want = np.stack([np.linalg.inv(homogeneous(m))[:2] for m in matrix])
    np.testing.assert_allclose(affine.invert(matrix), want, atol=1e-5)


def test_transform_keypoints_uses_width_for_x_and_height_for_y(rng):
    matrix = rng.normal(size=(2, 2, 3))
    points = rng.uniform(size=(2, 5, 2))
    got = affine.transform_keypoints(
        jnp.asarray(points, jnp.float32),
        jnp.asarray(matrix, jnp.float32),
        in_size=(10, 20),
        out_size=(40, 30),
    )
    want = np.empty_like(points)
    for b in range(2):
        for k in range(5):
            x, y = points[b, k, 0] * 20, points[b, k, 1] * 10
            want[b, k] = matrix[b, :, :2] @ [x, y] + matrix[b, :, 2]
            want[b, k] /= [30, 40]
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_a_map_without_an_inverse_gives_zeros_with_finite_gradients():
    flat = jnp.array([[1.0, 2.0, 3.0], [2.0, 4.0, 5.0]])
    got, pullback = jax.vjp(affine.invert, flat)
    np.testing.assert_array_equal(got, np.zeros((2, 3)))
    np.testing.assert_array_equal(pullback(jnp.ones_like(got))[0], np.zeros((2, 3)))
    assert np.isnan(affine.invert(flat * jnp.nan)).all()  # bad input stays visible
