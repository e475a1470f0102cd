"""The stream's state: a commutative monoid, whatever is put into it."""

from functools import reduce

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.fusion.state import FusionState, finalize, init_state, merge, update
from tests.quick import quick_jit

B, M, D, S = 2, 3, 5, 4
SIZES = dict(num_clusters=M, embed_dim=D, style_dim=S)


def draw(rng, images):
    """Assignment [B, M, N] with columns of sum 1, features and styles."""
    assignment = rng.dirichlet(np.ones(M), (B, images)).transpose(0, 2, 1)
    features = rng.normal(size=(B, images, D)) * 10 ** rng.normal(size=(B, images, 1))
    styles = rng.normal(size=(B, images, S))
    return [x.astype(np.float32) for x in (assignment, features, styles)]


def some_state(rng, images=6):
    return update(init_state(B, **SIZES), *draw(rng, images))


def assert_same(one, other, rtol=1e-5):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * np.abs(b).max())


def test_merge_is_a_commutative_monoid(rng):
    a, b, c = (some_state(rng) for _ in range(3))
    assert_same(merge(a, b), merge(b, a), rtol=0)
    assert_same(merge(merge(a, b), c), merge(a, merge(b, c)))
    assert_same(merge(a, init_state(B, **SIZES)), a, rtol=0)


@pytest.mark.parametrize("split", [(12,), (5, 7), (1,) * 12, (3, 1, 8)])
def test_any_split_and_any_order_equals_the_weighted_mean(rng, split):
    assignment, features, styles = draw(rng, 12)
    mass = assignment.astype(np.float64).sum(-1, keepdims=True)
    want = [assignment @ x.astype(np.float64) / mass for x in (features, styles)]
    order = rng.permutation(12)
    parts = np.split(order, np.cumsum(split)[:-1])
    states = [
        update(init_state(B, **SIZES), assignment[..., p], features[:, p], styles[:, p])
        for p in parts
    ]
    assert_same(finalize(reduce(merge, states)), want)
    np.testing.assert_allclose(reduce(merge, states).mass.sum(-1), 12, rtol=1e-6)


def official_mean_mixing(batches):
    """The update rule as the official code words it, in float64."""
    means, total = None, 0.0
    for assignment, values in batches:
        mass = assignment.astype(np.float64).sum(-1, keepdims=True)
        mean = assignment @ values.astype(np.float64) / np.maximum(mass, 1)
        old = 0.0 if means is None else total * means
        means = (old + mass * mean) / np.maximum(total + mass, 1e-6)
        total = total + mass
    return means


def test_at_least_one_is_official_mean_mixing(rng):
    """Small batches, whose clusters get less than one image."""
    state, batches = init_state(B, **SIZES), []
    for images in (1, 2, 3, 1):
        batch = draw(rng, images)
        batches.append(batch)
        state = update(state, *batch, row_sums="at_least_one")
    got = finalize(state, minimum_mass=1e-6)
    for index in (0, 1):
        want = official_mean_mixing([(b[0], b[1 + index]) for b in batches])
        np.testing.assert_allclose(got[index], want, rtol=1e-5, atol=1e-5)
    exact = reduce(merge, (update(init_state(B, **SIZES), *b) for b in batches))
    ratio = np.abs(got.features).sum() / np.abs(finalize(exact).features).sum()
    assert ratio < 0.9  # the official rule shrinks


def test_a_thousand_identical_images_are_one_image(rng):
    batch = draw(rng, 1)
    state = init_state(B, **SIZES)
    step = quick_jit(lambda state: update(state, *batch))
    for _ in range(1000):
        state = step(state)
    for got, want in zip(finalize(state), batch[1:], strict=True):
        want = np.broadcast_to(want, got.shape)
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5 * np.abs(want).max())


def test_no_images_give_zero_with_finite_gradients(rng):
    """Nothing seen, one cluster without mass, and one with next to none."""
    assert all((x == 0).all() for x in finalize(init_state(B, **SIZES)))
    _, features, styles = draw(rng, 4)

    def total(logits, features):
        assignment = jax.nn.softmax(logits, axis=1)
        state = update(init_state(B, **SIZES), assignment, features, styles)
        return sum(x.sum() for x in finalize(state))

    logits = np.zeros((B, M, 4), np.float32)
    logits[:, 1], logits[:, 2] = -80.0, -1e4
    value, gradients = quick_jit(jax.value_and_grad(total, (0, 1)))(logits, features)
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in gradients)


def test_bad_input_is_described(rng):
    state, batch = some_state(rng), draw(rng, 2)
    other = init_state(B, **{**SIZES, "num_clusters": M + 1})
    with pytest.raises(ValueError, match="merge: both states must have the same"):
        merge(state, other)
    with pytest.raises(ValueError, match="continue a stream with the model"):
        update(other, *batch)
    with pytest.raises(ValueError, match="update: assignment .* must fit each other"):
        update(state, batch[0], batch[1][:, :1], batch[2])
    with pytest.raises(ValueError, match="unknown row_sums 'rows'; use one of"):
        update(state, *batch, row_sums="rows")


def test_half_precision_is_summed_in_float32(rng):
    batch = [jnp.bfloat16(x) for x in draw(rng, 3)]
    state = update(init_state(B, **SIZES), *batch)
    assert isinstance(state, FusionState)
    assert all(x.dtype == jnp.float32 for x in state)
