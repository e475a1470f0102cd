"""Gait under conditions: what is done to sequences, lengths, the search."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.evaluation.evaluators.gait_search import (
    GaitCondition,
    GaitData,
    build,
    make_embedder,
    treat,
)
from kprpe_jax.evaluation.gait import gait_metrics, part_distances
from tests.data.test_gait import split
from tests.quick import quick_jit
from tests.tasks.tiny import one_device


def sequences(rng, batch=4, frames=3):
    return {
        "silhouettes": jnp.float32(rng.uniform(size=(batch, frames, 12, 8))),
        "keypoints": jnp.float32(rng.uniform(0.2, 0.8, (batch, frames, 17, 2))),
        "joint_mask": jnp.ones((batch, frames, 17), bool),
        "frame_mask": jnp.ones((batch, frames), bool),
    }


def numbers(**fields):
    return GaitCondition(**{name: jnp.float32(x) for name, x in fields.items()})


@pytest.mark.slow
def test_each_condition_changes_what_it_says(rng):
    before = sequences(rng)
    key = jax.random.key(0)
    run = quick_jit(treat)
    same = run(before, key, numbers())
    for name in before:
        np.testing.assert_allclose(same[name], before[name], atol=1e-5)

    moved = run(before, key, numbers(severity=1.0))
    assert np.abs(moved["keypoints"] - before["keypoints"]).max() > 0.05
    assert np.abs(moved["silhouettes"] - before["silhouettes"]).max() > 0.3
    assert 0 <= moved["silhouettes"].min()

    noisy = run(before, key, numbers(alpha=0.1))
    ratio = noisy["keypoints"] / before["keypoints"] - 1
    assert 0.05 < np.abs(ratio).max() <= 0.1001
    np.testing.assert_allclose(noisy["silhouettes"], before["silhouettes"], atol=1e-5)

    missing = run(before, key, numbers(missing=0.3))
    assert 0.55 < missing["joint_mask"].mean() < 0.85
    assert not run(before, key, numbers(missing=1.0))["joint_mask"].any()

    swapped = run(before, key, numbers(swapped=1.0))
    np.testing.assert_allclose(
        swapped["keypoints"], before["keypoints"][np.array([2, 3, 0, 1])], atol=1e-5
    )


def gait_data(sequences, *, uses_joints=True):
    return GaitData(
        embed, lambda split: sequences, uses_joints=uses_joints, batch_size=2
    )


def test_evaluators_of_joints_are_left_out_for_a_network_that_reads_none():
    data = gait_data(split((3, 5)), uses_joints=False)
    for fields in (dict(alpha=0.1), dict(missing=0.5), dict(swapped=True)):
        assert build(data, **fields) is None


def embed(params, collections, sequences):
    """Mean over valid frames of the first pixel, in one part of one number."""
    weight = sequences["frame_mask"][..., None]
    pixels = sequences["silhouettes"][:, :, :1, 0] * weight
    return params * (pixels.sum(1) / weight.sum(1))[:, None]


def test_sequences_of_all_lengths_come_back_in_order():
    lengths = (20, 1, 5, 3, 9, 7)
    data = split(lengths)
    run = make_embedder(embed, data, lengths=(4, 8), batch_size=2)
    got = run(jnp.float32(255), {}, one_device())
    # Frame t has the value t + 1; longer ones keep 8 frames, evenly spaced.
    want = [np.mean(np.arange(min(n, 8)) * n // min(n, 8) + 1.0) for n in lengths]
    np.testing.assert_allclose(got[:, 0, 0], want, rtol=1e-4)
    for wrong in ((), (8, 4), (0, 3)):
        with pytest.raises(ValueError, match="must be positive and rise"):
            make_embedder(embed, data, lengths=wrong, batch_size=2)


def test_probes_are_searched_in_the_others():
    data = split((3, 5, 20, 22, 6, 21))
    probes = np.array([True, False, True, False, False, False])
    data = data._replace(probes=probes)
    evaluate = build(gait_data(data), lengths=(32,))
    state = SimpleNamespace(params=jnp.float32(255), collections={})
    got = evaluate(state, one_device())
    values = (np.array([3, 5, 20, 22, 6, 21], np.float32) + 1)[:, None, None] / 2
    want = gait_metrics(
        part_distances(values[probes], values[~probes]),
        data.labels[probes],
        data.labels[~probes],
    )
    assert got["rank_1"] == want.rank_1 == 0.5
    assert got["map"] == pytest.approx(want.mean_ap)
    assert got["minp"] == pytest.approx(want.mean_inp)
    assert (got["probes"], got["gallery"]) == (2, 4)
    with pytest.raises(ValueError, match="must have probes and a gallery"):
        build(gait_data(data._replace(probes=probes | True)))
