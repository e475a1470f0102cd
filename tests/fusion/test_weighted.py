"""Weighted means in a stream against all images at once and sums in float64."""

import jax
import numpy as np
import pytest

from kprpe_jax.fusion import weighted_state
from kprpe_jax.fusion.weighted import METHODS, WeightedFusion
from tests.fusion.tiny import B, D, draw_sets, pad_images, select
from tests.quick import quick_jit

N = 8


def draw_variables(model, rng):
    """Weights away from their start: heads that say something."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), draw_sets(rng, 2))
    variables = jax.tree.map(
        lambda s: rng.normal(0, 0.7, s.shape).astype(np.float32), shapes
    )
    stats = variables.get("batch_stats", {})
    stats = jax.tree.map(np.square, stats)  # a variance is not negative
    return {**variables, "batch_stats": stats}


def oracle(values, logs):
    """[N, D] and [N, K] of one set, in float64."""
    weights = np.exp(np.float64(logs) - np.float64(logs).max(0))
    return (weights * values).sum(0) / weights.sum(0)


@pytest.mark.parametrize("method", METHODS)
def test_streams_give_what_all_images_give(rng, method):
    """In any batches and order, whatever the padding holds; the others in one batch."""
    model = WeightedFusion(D, method)
    variables, sets = draw_variables(model, rng), draw_sets(rng, N)
    update = quick_jit(
        lambda state, sets: model.apply(variables, state, sets, method="update")
    )
    empty = model.init_state(B)

    def fused(state):
        return np.asarray(model.finalize(state).embeddings)

    values, logs = model.apply(variables, sets, method="weigh")
    want = [oracle(v, w) for v, w in zip(values, logs, strict=True)]
    np.testing.assert_allclose(fused(update(empty, sets)), want, rtol=1e-4, atol=1e-5)
    if method in ("rsa", "inlier_average"):
        return
    assert np.ptp(logs) > 0.1 or method in ("average", "norm_weighted")
    parts = np.split(rng.permutation(N), [2, 5])
    states = [
        update(empty, pad_images(select(sets, part), np.nan, N)) for part in parts
    ]
    streamed = empty
    for part in parts[::-1]:
        streamed = update(streamed, pad_images(select(sets, part), np.inf, N))
    merged = model.merge(model.merge(states[0], states[1]), states[2])
    for state in (streamed, merged):
        np.testing.assert_allclose(fused(state), want, rtol=1e-4, atol=1e-5)
    assert (fused(empty) == 0).all()


def test_no_weight_overflows(rng):
    """A stream whose largest weight comes last, and images that weigh nothing."""
    values = rng.normal(size=(1, 3, 4)).astype(np.float32)
    logs = np.array([[[-1e4], [0.0], [1e4]]], np.float32)
    state = weighted_state.init_state(1, embed_dim=4)
    mask = np.ones((1, 1), bool)
    for n in range(3):
        part = slice(n, n + 1)
        state = weighted_state.update(state, values[:, part], logs[:, part], mask)
        got = weighted_state.finalize(state)
        np.testing.assert_allclose(got, values[:, n], rtol=1e-6)
    gradient = jax.grad(
        lambda logs: weighted_state.finalize(
            weighted_state.update(
                weighted_state.init_state(1, embed_dim=4),
                values,
                logs,
                np.array([[True, True, False]]),
            )
        ).sum()
    )
    assert np.isfinite(gradient(logs)).all()
    fine = gradient(np.array([[[0.3], [0.0], [np.nan]]], np.float32))
    share = 1 / (1 + np.exp(-0.3))
    slope = share * (1 - share) * (values[0, 0] - values[0, 1]).sum()
    np.testing.assert_allclose(fine[0, :, 0], [slope, -slope, 0], rtol=1e-4)


def test_wrong_sizes_are_described(rng):
    sets = draw_sets(rng, 2)
    with pytest.raises(ValueError, match="unknown method 'best'; use one of"):
        WeightedFusion(D, "best").init(jax.random.key(0), sets)
    with pytest.raises(ValueError, match=f"must have 99 channels; got {D}; fuse emb"):
        WeightedFusion(99).apply({}, sets)
    bare = sets._replace(features=sets.features._replace(style=None))
    with pytest.raises(ValueError, match="pfe estimates weights from style; got feat"):
        WeightedFusion(D, "pfe").init(jax.random.key(0), bare)
    other = WeightedFusion(D).init_state(B + 1)
    with pytest.raises(ValueError, match="continue a stream with the model and the"):
        WeightedFusion(D).apply({}, other, sets, method="update")
    with pytest.raises(ValueError, match="merge streams of one model"):
        weighted_state.merge(other, WeightedFusion(D).init_state(B))
