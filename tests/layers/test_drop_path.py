import jax
import jax.numpy as jnp
import numpy as np

from kprpe_jax.layers.drop_path import drop_path


def test_keeps_or_drops_whole_samples_with_the_right_expectation():
    branch = jnp.ones((20_000, 2, 3))
    out = np.asarray(drop_path(branch, 0.3, jax.random.key(0)))
    assert set(np.round(np.unique(out), 5)) == {0.0, np.float32(np.round(1 / 0.7, 5))}
    np.testing.assert_array_equal(
        out, np.broadcast_to(out[:, :1, :1], out.shape)
    )  # one decision per sample
    # Deviation of the mean: sqrt(0.3 / 0.7 / 20000) = 0.0046; five of them.
    assert abs(out.mean() - 1.0) < 0.023


def test_rate_zero_is_the_identity(rng):
    branch = rng.normal(size=(64, 3)).astype(np.float32)
    np.testing.assert_array_equal(drop_path(branch, 0.0, jax.random.key(1)), branch)


def test_rate_may_be_traced_and_type_is_kept():
    out = jax.jit(drop_path)(jnp.ones((4, 2), jnp.bfloat16), 0.5, jax.random.key(0))
    assert out.dtype == jnp.bfloat16
