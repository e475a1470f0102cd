import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.layers.mlp import relu6


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_relu6(dtype):
    x = jnp.asarray([-jnp.inf, -1.0, 0.0, 0.5, 5.9, 6.0, 7.0, jnp.inf], dtype)
    weights = jnp.arange(1.0, 9.0, dtype=dtype)
    out, pull = jax.vjp(relu6, x)
    assert out.dtype == x.dtype
    np.testing.assert_array_equal(out, [0, 0, 0, x[3], x[4], 6, 6, 6])
    np.testing.assert_array_equal(pull(weights)[0], [0, 0, 0, 4, 5, 0, 0, 0])


def test_backward_pass_of_relu6_keeps_the_result_alone():
    x = jnp.linspace(-1, 7, 32)
    out, pull = jax.vjp(relu6, x)
    (kept,) = jax.tree.leaves(pull)
    np.testing.assert_array_equal(kept, out)


def test_nan_stays():
    assert jnp.isnan(relu6(jnp.nan))
