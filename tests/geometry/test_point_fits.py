"""Fits against singular values and least squares in NumPy; degenerate points."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from kprpe_jax.geometry import affine, point_fits, template

FITS = {
    "similarity": jax.jit(point_fits.fit_similarity),
    "affine": jax.jit(point_fits.fit_affine),
}


def umeyama(source, target):
    """Eqs. 40-42, with singular values."""
    p, q = source - source.mean(0), target - target.mean(0)
    u, d, vt = np.linalg.svd(q.T @ p)
    s = np.diag([1, np.sign(np.linalg.det(u @ vt))])
    linear = u @ s @ vt * np.trace(np.diag(d) @ s) / (p**2).sum()
    return np.c_[linear, target.mean(0) - linear @ source.mean(0)]


def least_squares(source, target):
    return np.linalg.lstsq(np.c_[source, np.ones(len(source))], target)[0].T


@pytest.mark.parametrize(
    ("fit", "oracle"), [("similarity", umeyama), ("affine", least_squares)]
)
@pytest.mark.parametrize("mirror", [1, -1])
def test_equals_the_oracle(rng, fit, oracle, mirror):
    source = rng.uniform(0, 112, size=(8, 5, 2))
    target = source * [mirror, 1] * 0.7 + rng.normal(size=(8, 5, 2)) * 10
    got = FITS[fit](jnp.asarray(source), jnp.asarray(target))
    want = np.stack([oracle(s, t) for s, t in zip(source, target, strict=True)])
    np.testing.assert_allclose(got[..., :2], want[..., :2], atol=1e-4)
    np.testing.assert_allclose(got[..., 2], want[..., 2], atol=1e-2)


@pytest.mark.parametrize("fit", FITS)
def test_gradients_equal_finite_differences(rng, fit):
    points = [jnp.asarray(rng.normal(size=(2, 5, 2)), jnp.float32) for _ in "st"]
    check_grads(FITS[fit], points, 1, ["rev"], 1e-2, 1e-2, eps=1e-2)


@pytest.mark.parametrize("fit", FITS)
def test_collinear_points_give_the_similarity_and_finite_gradients(fit):
    line = jnp.stack([jnp.arange(5.0), 2 * jnp.arange(5.0)], axis=-1)
    target = line @ jnp.array([[0.0, 3.0], [-3.0, 0.0]]) + 7
    got, pullback = jax.vjp(FITS[fit], line, target)
    np.testing.assert_allclose(got, [[0, -3, 7], [3, 0, 7]], atol=1e-4)
    assert all(np.isfinite(g).all() for g in pullback(jnp.ones_like(got)))


@pytest.mark.parametrize("value", [0.0, 37.3])
@pytest.mark.parametrize("fit", FITS)
def test_coincident_points_give_a_translation_and_finite_gradients(fit, value):
    source = jnp.full((5, 2), value)
    target = jnp.asarray(template.ARCFACE_112)
    got, pullback = jax.vjp(FITS[fit], source, target)
    np.testing.assert_allclose(got[:, :2], np.eye(2), atol=1e-6)
    np.testing.assert_allclose(got[:, 2], target.mean(0) - value, atol=1e-4)
    assert all(np.isfinite(g).all() for g in pullback(jnp.ones_like(got)))


def test_a_perfect_reflection_collapses_but_its_inverse_is_finite():
    square = jnp.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])

    @jax.jit
    def inverse(target):
        return affine.invert(point_fits.fit_similarity(square, target))

    got, pullback = jax.vjp(inverse, square * jnp.array([-1.0, 1.0]))
    np.testing.assert_array_equal(got, np.zeros((2, 3)))
    assert np.isfinite(pullback(jnp.ones_like(got))[0]).all()


def test_template_at_other_sizes():
    np.testing.assert_array_equal(template.face_template(), template.ARCFACE_112)
    twice = template.face_template((224, 224))
    np.testing.assert_allclose(twice, template.ARCFACE_112 * 2, rtol=1e-6)
    narrow = template.face_template((112, 96))  # SphereFace's own numbers
    np.testing.assert_allclose(narrow[0], [30.2946, 51.6963], atol=1e-4)
    assert narrow.dtype == np.float32


def test_points_that_do_not_pair_are_named():
    with pytest.raises(ValueError, match=r"fit_affine: .*got \(5, 2\) and \(4, 2\)"):
        point_fits.fit_affine(jnp.zeros((5, 2)), jnp.zeros((4, 2)))
