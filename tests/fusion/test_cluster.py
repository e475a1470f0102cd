import jax
import numpy as np
import pytest

from kprpe_jax.fusion.cluster import ClusterNetwork, assign
from tests.quick import quick_jit

SETS, M, N, WIDTH = 2, 3, 5, 8


@pytest.fixture
def inputs(rng):
    keys = rng.normal(size=(SETS, N, WIDTH)).astype(np.float32)
    centers = rng.normal(size=(M, WIDTH)).astype(np.float32)
    return keys, centers, np.arange(N) < np.array([[5], [3]])


def test_assignment_equals_oracle(inputs):
    """Eq. 2, image by image: a softmax over the centers."""
    keys, centers, mask = inputs
    got = assign(centers, keys, mask)
    for b in range(SETS):
        for n in range(N):
            logits = centers.astype(np.float64) @ keys[b, n] / np.sqrt(WIDTH)
            want = np.exp(logits) / np.exp(logits).sum() * mask[b, n]
            np.testing.assert_allclose(got[b, :, n], want, rtol=1e-5, atol=1e-7)


def random_params(model, inputs, rng):
    shapes = jax.eval_shape(
        lambda: model.init(jax.random.key(0), *inputs, train=False)
    )["params"]
    return jax.tree.map(lambda s: rng.normal(0, 0.5, s.shape).astype("f4"), shapes)


@pytest.mark.parametrize(("depth", "moves"), [(0, False), (2, True)])
def test_only_the_transformer_sees_batch_mates(inputs, rng, depth, moves):
    keys, centers, mask = inputs
    model = ClusterNetwork(depth=depth, num_heads=2)
    params = random_params(model, inputs, rng)
    run = quick_jit(lambda k: model.apply({"params": params}, k, centers, mask,
                                          train=False)[0])  # fmt: skip
    other = keys.copy()
    other[:, 1:] += rng.normal(size=(SETS, N - 1, WIDTH))  # a layer norm sees no shift
    one, two = run(keys)[..., 0], run(other)[..., 0]
    assert (np.abs(one - two).max() > 1e-3) == moves
    np.testing.assert_allclose(run(keys).sum(1), mask, atol=1e-6)


def test_centers_take_part_in_the_transformer(inputs, rng):
    keys, centers, mask = inputs
    model = ClusterNetwork(depth=1, num_heads=2)
    variables = {"params": random_params(model, inputs, rng)}
    run = quick_jit(lambda c: model.apply(variables, keys, c, mask, train=False)[1])
    other = centers + rng.normal(size=centers.shape).astype(np.float32)
    assert np.abs(run(centers) - run(other)).max() > 1e-3
