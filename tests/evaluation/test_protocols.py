"""Protocols against score matrices and loops."""

import numpy as np
import pytest

from kprpe_jax.evaluation.protocols import (
    distractor_search,
    gallery_search,
    million_distractors,
    template_verification,
)
from kprpe_jax.evaluation.roc import roc_curve, tar_at_far
from kprpe_jax.evaluation.templates import Templates


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.fixture
def people(rng):
    """Embeddings of 60 images of 20 people, and their ids."""
    ids = np.arange(60) % 20
    centers = rng.normal(size=(20, 8))
    return (centers[ids] + rng.normal(0, 0.9, (60, 8))).astype(np.float32), ids


def test_template_verification(people, rng):
    x, ids = people
    templates = Templates(np.arange(60) * 3 + 1, unit(x))
    first, second = rng.integers(0, 60, (2, 500))
    same = ids[first] == ids[second]
    got = template_verification(
        templates, first * 3 + 1, second * 3 + 1, same, fars=[0.01, 0.1], block=64
    )
    scores = (unit(x)[first] * unit(x)[second]).sum(1)
    want = tar_at_far(roc_curve(scores, same), [0.01, 0.1])
    np.testing.assert_allclose(got.tar, want.tar)
    np.testing.assert_allclose(got.threshold, want.threshold, atol=1e-6)
    with pytest.raises(ValueError, match=r"must have an image; got 1 .* \[2\]"):
        template_verification(templates, np.array([1]), np.array([2]), np.array([1]))
    for one, two in ((first[:64], first[:70]), (first[:70], first[:64])):
        with pytest.raises(ValueError, match="lists of one length"):
            template_verification(templates, one * 3 + 1, two * 3 + 1, same, block=64)


def test_gallery_search_is_the_mean_over_galleries(people):
    x, ids = people
    probes, probe_ids = x[40:], ids[40:]
    parts = [np.flatnonzero((ids[:40] < 12) == side) for side in (True, False)]
    got = gallery_search(
        probes, probe_ids, [(x[p], ids[p]) for p in parts], fpirs=(0.25,)
    )
    ranks, tpirs = [], []
    for part in parts:
        scores = unit(probes) @ unit(x[part]).T
        same = probe_ids[:, None] == ids[part]
        mated = same.any(1)
        top = np.argsort(-scores, 1)
        hits = np.take_along_axis(same, top, 1)[mated]
        ranks.append([hits[:, :k].any(1).mean() for k in (1, 5)])
        highest = np.sort(scores[~mated].max(1))[::-1]
        at = highest[int(0.25 * len(highest))]
        mates = np.where(same, scores, -2).max(1)[mated]
        tpirs.append((mates > at).mean())
    np.testing.assert_allclose(got.rank, np.mean(ranks, 0))
    np.testing.assert_allclose(got.tpir, [np.mean(tpirs)])
    closed = gallery_search(probes, probe_ids, [(x[:40], ids[:40])], fpirs=())
    assert closed.tpir.size == 0
    assert closed.rank[1] >= closed.rank[0] > 0


def test_distractors_only_take_places(people, rng):
    x, ids = people
    strangers = rng.normal(size=(500, 8)).astype(np.float32)
    args = (x[40:], ids[40:], x[:40], ids[:40])
    alone, among = (distractor_search(*args, s) for s in (strangers[:0], strangers))
    assert (among <= alone).all()
    assert among[0] < alone[0]
    scores = unit(x[40:]) @ unit(np.concatenate([x[:40], strangers])).T
    labels = np.concatenate([ids[:40], np.full(500, -100)])
    top = labels[np.argsort(-scores, 1)]
    want = [(top[:, :k] == ids[40:, None]).any(1).mean() for k in (1, 5, 20)]
    np.testing.assert_allclose(among, want)


def test_million_distractors_by_loop(people, rng):
    x, ids = people
    strangers = rng.normal(size=(300, 8)).astype(np.float32)
    hits = []
    for i in range(60):
        highest = max(unit(s) @ unit(x[i]) for s in strangers)
        hits += [
            unit(x[i]) @ unit(x[j]) > highest
            for j in range(60)
            if j != i and ids[i] == ids[j]
        ]
    for given in (strangers, iter(np.split(strangers, 3))):
        assert million_distractors(x, ids, given) == pytest.approx(np.mean(hits))
    assert 0 < np.mean(hits) < 1
    with pytest.raises(ValueError, match="two images; got 60 images of 60 identities"):
        million_distractors(x, np.arange(60), strangers)


def test_a_distractor_like_the_probe_is_a_miss():
    x = np.array([[1, 0], [1, 0]], np.float32)
    assert million_distractors(x, [0, 0], x[:1]) == 0


def test_the_mate_among_the_distractors_is_a_miss_whatever_the_round_off(rng):
    x = rng.normal(size=(40, 512)).astype(np.float32)
    ids = np.arange(40) // 2
    assert million_distractors(x, ids, x) == 0


def test_lists_of_other_lengths(people):
    x, ids = people
    templates = Templates(np.arange(60), x)
    for same in ([True], [True, False, True]):
        with pytest.raises(ValueError, match="template_verification: .* one length"):
            template_verification(templates, [0, 1], [2, 3], same)
    with pytest.raises(ValueError, match="there must be a gallery; got none"):
        gallery_search(x, ids, [])
