"""Affine and projective grids against written-out algebra; composition by sampling."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.geometry import affine, grids, sampling, theta
from tests.quick import quick_jit


def project(parameters, point):
    x, y, w = np.append(parameters, 1).reshape(3, 3) @ [*point, 1]
    return x / w, y / w


def test_projective_is_the_homogeneous_product(rng):
    parameters = grids.IDENTITY_PROJECTIVE + rng.normal(size=(3, 8)) * 0.2
    got = grids.projective_grid(jnp.asarray(parameters, jnp.float32), (4, 5))
    points = grids.identity_grid((4, 5))
    for b, row, col in np.ndindex(3, 4, 5):
        want = project(parameters[b], points[row, col])
        np.testing.assert_allclose(got[b, row, col], want, atol=1e-4)


def test_projective_inverse_goes_back(rng):
    parameters = grids.IDENTITY_PROJECTIVE + rng.normal(size=(4, 8)) * 0.2
    parameters = jnp.asarray(parameters, jnp.float32)
    points = jnp.asarray(rng.uniform(-1, 1, size=(4, 6, 2)), jnp.float32)
    there = grids.apply_projective(parameters, points)
    back = grids.apply_projective(grids.invert_projective(parameters), there)
    np.testing.assert_allclose(back, points, atol=1e-4)


def test_points_behind_the_horizon_stay_finite():
    parameters = jnp.asarray(grids.IDENTITY_PROJECTIVE).at[6].set(-2.0)

    def total(parameters):
        return jnp.square(grids.projective_grid(parameters, (4, 4))).sum()

    value, gradient = quick_jit(jax.value_and_grad(total))(parameters)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("align", [False, True])
def test_composed_grids_are_one_affine_grid(rng, align):
    inner = np.eye(2, 3) + rng.normal(size=(2, 2, 3)) * 0.1
    outer = np.eye(2, 3) * 0.6 + rng.normal(size=(2, 2, 3)) * 0.05
    inner, outer = jnp.asarray(inner, jnp.float32), jnp.asarray(outer, jnp.float32)
    got = grids.compose_grids(
        grids.affine_grid(outer, (5, 6), align_corners=align),
        grids.affine_grid(inner, (9, 8), align_corners=align),
        align_corners=align,
    )
    want = grids.affine_grid(affine.compose(outer, inner), (5, 6), align_corners=align)
    np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("align", [False, True])
def test_theta_shows_what_the_pixel_matrix_shows(rng, align):
    images = jnp.asarray(rng.normal(size=(2, 6, 9, 3)), jnp.float32)
    matrix = jnp.asarray(np.eye(2, 3) + rng.normal(size=(2, 2, 3)) * 0.3, jnp.float32)
    sizes = dict(in_size=(6, 9), out_size=(7, 5), align_corners=align)
    sampler = theta.sampling_matrix(matrix, **sizes)
    got = sampling.grid_sample(
        images,
        grids.affine_grid(sampler, (7, 5), align_corners=align),
        align_corners=align,
    )
    want = sampling.warp_affine(images, affine.invert(matrix), out_size=(7, 5))
    np.testing.assert_allclose(got, want, atol=1e-4)
    np.testing.assert_allclose(theta.pixel_matrix(sampler, **sizes), matrix, atol=1e-4)


@pytest.mark.parametrize(
    ("align", "moved"), [(False, (2 / 8, 1 / 4)), (True, (2 / 7, 1 / 3))]
)
def test_theta_of_a_translation(align, moved):
    sizes = dict(in_size=(4, 8), out_size=(4, 8), align_corners=align)
    got = theta.sampling_matrix(affine.translation(jnp.array([1, 0.5])), **sizes)
    np.testing.assert_allclose(got, [[1, 0, -moved[0]], [0, 1, -moved[1]]], atol=1e-6)


def test_one_pixel_has_no_corners_to_align():
    sizes = dict(in_size=(1, 4), out_size=(4, 4), align_corners=True)
    with pytest.raises(ValueError, match=r"two pixels .* got size \(1, 4\)"):
        theta.sampling_matrix(jnp.eye(2, 3), **sizes)
    assert grids.identity_grid((1, 1), align_corners=True).tolist() == [[[0, 0]]]
