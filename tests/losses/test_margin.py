"""Margins against their formulas, and their gradients at the ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.losses.margin import (
    GRADIENTS,
    MARGINS,
    add_angle,
    clip_cosine,
    make_margin,
    unit,
)

COSINES = np.array([-1.0, -0.95, -0.5, 0.0, 0.3, 0.9, 1.0], np.float32)


def test_cosface_subtracts():
    margin = make_margin("cosface", margin=0.4)
    np.testing.assert_allclose(margin.target_cosine(COSINES), COSINES - 0.4, atol=1e-6)


def test_cosine_is_left_alone():
    margin = make_margin("cosine", margin=0.4)
    np.testing.assert_array_equal(margin.target_cosine(COSINES), COSINES)


def test_arcface_adds_an_angle_and_stops_at_pi():
    margin = make_margin("arcface", margin=0.5)
    angle = np.minimum(np.arccos(COSINES.astype(np.float64)) + 0.5, np.pi)
    # At cosine = 1 the sine is kept above 1e-4.
    np.testing.assert_allclose(
        margin.target_cosine(COSINES), np.cos(angle), atol=1e-4 * np.sin(0.5) + 1e-6
    )


def test_arcface_never_rewards_a_larger_angle():
    cosines = jnp.linspace(-1, 1, 2001)
    target = make_margin("arcface", margin=0.5).target_cosine(cosines)
    assert (np.diff(target) >= -1e-6).all()


@pytest.mark.parametrize("kind", MARGINS)
@pytest.mark.parametrize("gradient", GRADIENTS)
def test_gradients_are_finite_at_the_ends(kind, gradient):
    margin = make_margin(kind, margin=0.5, gradient=gradient)
    gradients = jax.vmap(jax.grad(margin.target_cosine))(COSINES)
    assert np.isfinite(gradients).all()
    if gradient == "identity":
        np.testing.assert_array_equal(gradients, np.ones_like(COSINES))


def test_exact_arcface_gradient():
    cosine, angle = np.float32(0.3), 0.5
    theta = np.arccos(0.3)
    np.testing.assert_allclose(
        jax.grad(add_angle)(cosine, angle),
        np.sin(theta + angle) / np.sin(theta),
        rtol=1e-5,
    )


def test_unit_of_zero_is_zero_with_finite_gradient():
    x = jnp.array([[0.0, 0.0], [3.0, 4.0]])
    np.testing.assert_allclose(unit(x), [[0, 0], [0.6, 0.8]], atol=1e-7)
    assert np.isfinite(jax.jacobian(unit)(x)).all()


def test_clip_passes_the_gradient_where_it_clips():
    cosine = jnp.array([-1.0000001, -1.0, 0.2, 1.0, 1.0000001], jnp.float32)
    assert np.abs(clip_cosine(cosine)).max() <= 1.0
    gradients = jax.vmap(jax.grad(clip_cosine))(cosine)
    np.testing.assert_array_equal(gradients, np.ones(5))


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (dict(kind="arc", margin=0.5), "unknown kind 'arc'"),
        (dict(kind="arcface", margin=-0.5), "must not be negative"),
        (dict(kind="arcface", margin=0.5, scale=0.0), "scale must be positive"),
        (dict(kind="arcface", margin=0.5, gradient="none"), "unknown gradient 'none'"),
    ],
)
def test_errors(arguments, match):
    with pytest.raises(ValueError, match=match):
        make_margin(**arguments)
