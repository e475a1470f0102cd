"""Vectors of length one."""

import jax
import jax.numpy as jnp
import numpy as np

from kprpe_jax.layers.unit import unit


def test_unit_of_zero_is_zero_with_finite_gradient():
    x = jnp.array([[0.0, 0.0], [3.0, 4.0]])
    np.testing.assert_allclose(unit(x), [[0, 0], [0.6, 0.8]], atol=1e-7)
    assert np.isfinite(jax.jacobian(unit)(x)).all()
