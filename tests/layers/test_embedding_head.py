import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.layers.embedding_head import EmbeddingHead
from kprpe_jax.layers.mlp import Mlp


@pytest.mark.parametrize("pool", ["flatten", "mean"])
def test_equal_to_numpy(pool, rng):
    tokens = rng.normal(size=(4, 6, 8)).astype(np.float32)
    head = EmbeddingHead(3, pool)
    shapes = jax.eval_shape(lambda: head.init(jax.random.key(0), tokens, train=False))
    variables = jax.tree.map(
        lambda s: rng.uniform(0.5, 1.5, s.shape).astype(np.float32), shapes
    )
    p, stats = variables["params"], variables["batch_stats"]
    x = tokens.reshape(4, -1) if pool == "flatten" else tokens.mean(1)
    for number in "12":
        norm, running = p[f"norm{number}"], stats[f"norm{number}"]
        x = x @ p[f"linear{number}"]["kernel"]
        x = (x - running["mean"]) / np.sqrt(running["var"] + 2e-5)
        x = x * norm["scale"] + norm["bias"]
    got = head.apply(variables, tokens, train=False)
    np.testing.assert_allclose(got, x, rtol=1e-4, atol=1e-4)


def test_mean_pool_does_not_see_the_order_and_flatten_does(rng):
    tokens = rng.normal(size=(2, 6, 8)).astype(np.float32)
    for pool, same in (("mean", True), ("flatten", False)):
        head = EmbeddingHead(3, pool)
        variables = head.init(jax.random.key(0), tokens, train=False)
        one, two = (
            head.apply(variables, t, train=False) for t in (tokens, tokens[:, ::-1])
        )
        assert np.allclose(one, two, atol=1e-5) == same


def test_half_precision_gives_float32_embeddings():
    head = EmbeddingHead(3, dtype=jnp.bfloat16)
    tokens = jnp.ones((2, 4, 8), jnp.bfloat16)
    out, variables = head.init_with_output(jax.random.key(0), tokens, train=False)
    assert out.dtype == jnp.float32
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))


@pytest.mark.parametrize("activation", ["relu6", "gelu"])
def test_mlp_activations(activation):
    mlp = Mlp(1, activation)
    params = {
        "fc1": {"kernel": np.ones((1, 1)), "bias": np.zeros(1)},
        "fc2": {"kernel": np.ones((1, 1)), "bias": np.zeros(1)},
    }
    x = np.array([[-1.0], [2.0], [9.0]], np.float32)
    want = {"relu6": [0.0, 2.0, 6.0], "gelu": [-0.158655, 1.9545, 9.0]}[activation]
    np.testing.assert_allclose(
        mlp.apply({"params": params}, x)[:, 0], want, rtol=1e-4, atol=1e-6
    )
