"""Gait metrics against slow loops."""

import numpy as np
import pytest

from kprpe_jax.evaluation.gait import gait_metrics, part_distances


def slow_metrics(distances, probe_ids, gallery_ids):
    """First-match ranks, AP and INP by walking down each ranking."""
    ranks, aps, inps = [], [], []
    for row, identity in zip(distances, probe_ids, strict=True):
        order = sorted(range(len(row)), key=lambda g: (row[g], g))
        found = [r for r, g in enumerate(order, 1) if gallery_ids[g] == identity]
        if found:
            ranks.append(found[0])
            aps.append(np.mean([n / rank for n, rank in enumerate(found, 1)]))
            inps.append(len(found) / found[-1])
    return np.array(ranks), aps, inps


@pytest.mark.parametrize("seed", range(3))
def test_metrics_equal_loops(seed):
    rng = np.random.default_rng(seed)
    probe_ids, gallery_ids = rng.integers(0, 9, 12), rng.integers(0, 6, 30)
    distances = rng.integers(0, 8, (12, 30)) / 4  # with ties
    got = gait_metrics(distances, probe_ids, gallery_ids)
    ranks, ap, inp = slow_metrics(distances, probe_ids, gallery_ids)
    np.testing.assert_allclose(got.ap, ap)
    np.testing.assert_allclose(got.inp, inp)
    want = [(ranks <= k).mean() for k in (1, 5, 10)] + [np.mean(ap), np.mean(inp)]
    np.testing.assert_allclose(got[:5], want)
    assert got.dropped == 12 - len(ranks) > 0


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_distances_equal_loops(metric):
    rng = np.random.default_rng(0)
    probe, gallery = rng.normal(size=(3, 4, 5)), rng.normal(size=(6, 4, 5))
    gallery[2] = probe[1]  # rounding must not make a root of a negative number
    got = part_distances(probe, gallery, metric=metric)
    for q, g in np.ndindex(3, 6):
        parts = []
        for a, b in zip(probe[q], gallery[g], strict=True):
            cosine = a @ b / np.sqrt((a @ a) * (b @ b))
            parts.append(
                1 - cosine if metric == "cosine" else np.sqrt(((a - b) ** 2).sum())
            )
        np.testing.assert_allclose(got[q, g], np.mean(parts), atol=2e-3)


def test_an_embedding_of_zeros_has_cosine_zero():
    zeros, ones = np.zeros((1, 2, 3)), np.ones((1, 2, 3))
    assert part_distances(zeros, ones, metric="cosine") == 1.0


def test_bad_input():
    three = np.zeros((3, 2, 4))
    with pytest.raises(ValueError, match="unknown metric 'manhattan'"):
        part_distances(three, three, metric="manhattan")
    with pytest.raises(ValueError, match="at least one sequence each"):
        part_distances(three[:0], three)
    with pytest.raises(ValueError, match=r"must be \[Q, P, D\]"):
        part_distances(three, three[:, :1])
    with pytest.raises(ValueError, match="one id per row"):
        gait_metrics(np.zeros((3, 2)), np.arange(2), np.arange(2))
    with pytest.raises(ValueError, match="must be finite; got 1"):
        gait_metrics([[np.nan, 0.0]], np.arange(1), np.arange(2))
    with pytest.raises(ValueError, match="got 3 probes without"):
        gait_metrics(np.zeros((3, 2)), np.arange(3), np.array([8, 9]))
