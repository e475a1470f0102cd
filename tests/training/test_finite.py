import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.training.finite import _look_at


@pytest.mark.parametrize("factor", [0.0, 1.0, 1e30, 1e-30])
def test_the_norm_of_parameters_does_not_overflow(factor, rng):
    arrays = [
        rng.normal(size=n).astype(np.float32) * np.float32(factor) for n in (3, 7)
    ]
    finite, norm = _look_at({"a": jnp.array(arrays[0]), "b": jnp.array(arrays[1])})
    whole = np.concatenate(arrays).astype(np.float64)
    assert finite
    assert float(norm) == pytest.approx(np.linalg.norm(whole), rel=1e-6)


def test_what_is_not_finite_is_seen():
    for value in (np.nan, np.inf):
        finite, _ = _look_at({"a": jnp.ones(2), "b": jnp.array([1.0, value])})
        assert not finite
