"""Vectors of length one."""

import jax
import jax.numpy as jnp
import numpy as np

from kprpe_jax.core.unit import direction, unit


def test_unit_of_zero_is_zero_with_finite_gradient():
    x = jnp.array([[0.0, 0.0], [3.0, 4.0]])
    np.testing.assert_allclose(unit(x), [[0, 0], [0.6, 0.8]], atol=1e-7)
    assert np.isfinite(jax.jacobian(unit)(x)).all()


def test_direction_of_any_length():
    x = jnp.array([3.0, -4.0]) * jnp.array([[1e-37], [1e-12], [1], [1e19], [8e37]])
    got = jax.jit(direction)(x)
    np.testing.assert_allclose(got, np.tile([0.6, -0.8], (5, 1)), rtol=1e-6)
    np.testing.assert_array_equal(
        jax.jit(direction)(jnp.array([[0, 0], [1e-40, 0]])), 0
    )
    zeros_too = jnp.array([[3.0, -4.0], [0.0, 0.0], [3e-3, -4e-3]])
    slopes, expected = (jax.jit(jax.jacobian(f))(zeros_too) for f in (direction, unit))
    np.testing.assert_allclose(slopes[::2], expected[::2], rtol=1e-5, atol=1e-6)
    assert np.isfinite(slopes).all()
