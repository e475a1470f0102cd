import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from kprpe_jax.layers.batch_norm import BatchNorm

EPSILON, MOMENTUM = 2e-5, 0.9


@pytest.fixture
def setup(rng):
    """Module, variables away from their start, and inputs [16, 5]."""
    module = BatchNorm(epsilon=EPSILON, momentum=MOMENTUM)
    x = rng.normal(1.0, 3.0, (16, 5)).astype(np.float32)
    draw = lambda: rng.uniform(0.5, 2.0, 5).astype(np.float32)  # noqa: E731
    variables = {
        "params": {"scale": draw(), "bias": draw()},
        "batch_stats": {"mean": draw(), "var": draw()},
    }
    return module, variables, x


def normalize(x, mean, var, params):
    return (x - mean) / np.sqrt(var + EPSILON) * params["scale"] + params["bias"]


def test_evaluation_uses_running_statistics(setup):
    module, variables, x = setup
    stats = variables["batch_stats"]
    want = normalize(x, stats["mean"], stats["var"], variables["params"])
    np.testing.assert_allclose(
        module.apply(variables, x, train=False), want, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("shape", [(16, 5), (4, 4, 5)])
def test_training_normalizes_biased_and_collects_unbiased(setup, shape):
    module, variables, x = setup
    got, after = module.apply(
        variables, x.reshape(shape), train=True, mutable=["batch_stats"]
    )
    want = normalize(x, x.mean(0), x.var(0), variables["params"]).reshape(shape)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    for name, value in (("mean", x.mean(0)), ("var", x.var(0, ddof=1))):
        old = variables["batch_stats"][name]
        want = MOMENTUM * old + (1 - MOMENTUM) * value
        np.testing.assert_allclose(after["batch_stats"][name], want, rtol=1e-5)


def test_masked_samples_are_as_if_absent(setup):
    module, variables, x = setup
    mask = np.arange(16) % 3 > 0
    padded = np.where(mask[:, None], x, 1e6).astype(np.float32)
    run = lambda x, mask=None: module.apply(  # noqa: E731
        variables, x, mask, train=True, mutable=["batch_stats"]
    )
    (got, after), (want, wanted) = run(padded, mask), run(x[mask])
    np.testing.assert_allclose(got[mask], want, rtol=1e-5, atol=1e-5)
    for one, other in zip(*map(jax.tree.leaves, (after, wanted)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)
    _, after = run(x, np.zeros(16, bool))
    jax.tree.map(
        np.testing.assert_array_equal, after["batch_stats"], variables["batch_stats"]
    )


def test_batch_of_one_is_finite_with_gradients(setup):
    module, variables, x = setup

    def total(params):
        out, after = module.apply(
            {**variables, "params": params}, x[:1], train=True, mutable=["batch_stats"]
        )
        return out.sum(), (out, after)

    gradient, (out, after) = jax.grad(total, has_aux=True)(variables["params"])
    np.testing.assert_allclose(out[0], variables["params"]["bias"], rtol=1e-6)
    assert all(np.isfinite(a).all() for a in jax.tree.leaves((gradient, after)))


def test_large_mean_keeps_its_variance(setup):
    """E[x^2] - E[x]^2 would lose these digits in float32."""
    module, variables, _ = setup
    x = 1e4 + np.tile(np.float32([[-1.0], [1.0]]), (8, 5))
    _, after = module.apply(variables, x, train=True, mutable=["batch_stats"])
    new = (after["batch_stats"]["var"] - 0.9 * variables["batch_stats"]["var"]) / 0.1
    np.testing.assert_allclose(new, 16 / 15, rtol=1e-4)


def test_half_precision_input_gives_float32(setup):
    module, variables, x = setup
    for train in (True, False):
        out, _ = module.apply(
            variables, jnp.bfloat16(x), train=train, mutable=["batch_stats"]
        )
        assert out.dtype == jnp.float32


def test_sharded_batch_has_global_statistics(setup):
    module, variables, x = setup

    @jax.jit
    def run(x):
        return module.apply(variables, x, train=True, mutable=["batch_stats"])

    mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("data", "fsdp"))
    sharded = jax.device_put(x, NamedSharding(mesh, P(("data", "fsdp"))))
    assert len(sharded.addressable_shards) == 8
    for one, many in zip(
        jax.tree.leaves(run(x)), jax.tree.leaves(run(sharded)), strict=True
    ):
        np.testing.assert_allclose(many, one, rtol=1e-5, atol=1e-5)
