"""Against Flax's layer, whose parameters it has."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.layers.layer_norm import LayerNorm, layer_norm


@pytest.mark.parametrize(
    ("dtype", "atol"), [(jnp.float32, 5e-6), (jnp.bfloat16, 4e-2)], ids=str
)
def test_values_and_gradients_are_those_of_flax(rng, dtype, atol):
    x = jnp.asarray(3 + 2 * rng.normal(size=(3, 5, 16)), dtype)
    weights = jnp.asarray(rng.normal(size=x.shape), jnp.float32)
    params = {
        "scale": jnp.asarray(rng.normal(size=16), jnp.float32),
        "bias": jnp.asarray(rng.normal(size=16), jnp.float32),
    }
    ours = LayerNorm(epsilon=1e-3, dtype=dtype)
    flax = nn.LayerNorm(epsilon=1e-3, dtype=dtype, use_fast_variance=False)

    def run(model, params, x):
        y = model.apply({"params": params}, x)
        assert y.dtype == dtype
        return (weights * y).sum(), y

    for got, want in zip(
        *(
            jax.tree.leaves(
                jax.value_and_grad(
                    lambda p, x, m=model: run(m, p, x), (0, 1), has_aux=True
                )(params, x)
            )
            for model in (ours, flax)
        ),
        strict=True,
    ):
        assert got.dtype == want.dtype
        scale = float(np.abs(want.astype(np.float32)).max())
        np.testing.assert_allclose(
            *(a.astype(np.float32) for a in (got, want)), atol=atol * scale
        )
    shapes = jax.eval_shape(ours.init, jax.random.key(0), x)
    assert shapes == jax.eval_shape(flax.init, jax.random.key(0), x)


def test_a_constant_row_gives_the_bias():
    x = jnp.full((2, 8), 7.0)
    bias = jnp.arange(8.0)
    y, pull = jax.vjp(lambda x: layer_norm(x, 1 + bias, bias, 1e-5, jnp.float32), x)
    np.testing.assert_array_equal(y, np.tile(bias, (2, 1)))
    assert np.isfinite(pull(jnp.ones_like(y))[0]).all()


def test_the_backward_pass_keeps_the_input_and_two_numbers_a_row():
    x = jnp.ones((4, 6, 32), jnp.bfloat16)
    ones = jnp.ones(32)
    _, pull = jax.vjp(lambda x: layer_norm(x, ones, ones, 1e-5, jnp.bfloat16), x)
    kept = {(leaf.shape, leaf.dtype.name) for leaf in jax.tree.leaves(pull)}
    row = (4, 6, 1), "float32"
    assert kept == {(x.shape, "bfloat16"), row, ((32,), "float32")}
