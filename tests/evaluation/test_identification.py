"""Identification against a loop over probes."""

import numpy as np
import pytest

from kprpe_jax.evaluation.identification import (
    alarm_threshold,
    mate_recall_at_false_matches,
    open_set,
    outcome_of_scores,
    outcome_of_search,
    rank_accuracy,
)
from kprpe_jax.matching.nearest import search


@pytest.fixture
def people(rng):
    probes = rng.normal(size=(40, 5)).astype(np.float32)
    gallery = rng.normal(size=(25, 5)).astype(np.float32)
    probe_ids, gallery_ids = rng.integers(0, 20, 40), np.arange(25) % 14
    gallery += 2 * probes[rng.integers(0, 40, 25)]
    return probes, probe_ids, gallery, gallery_ids


def matrix(people):
    probes, probe_ids, gallery, gallery_ids = people
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (probes, gallery)]
    return unit[0] @ unit[1].T, probe_ids[:, None] == gallery_ids


def test_search_and_matrix_tell_the_same(people):
    probes, probe_ids, gallery, gallery_ids = people
    want = outcome_of_scores(*matrix(people))
    found = search(probes, probe_ids, gallery, gallery_ids, k=6, block=4)
    got = outcome_of_search(found, probe_ids)
    np.testing.assert_array_equal(got.mated, want.mated)
    np.testing.assert_array_equal(got.mate_rank, np.minimum(want.mate_rank, 6))
    np.testing.assert_allclose(got.mate_score, want.mate_score, atol=1e-6)
    np.testing.assert_allclose(got.best_score, want.best_score, atol=1e-6)


def test_rank_accuracy_by_loop(people):
    scores, same = matrix(people)
    hits = {1: [], 3: []}
    for row, mates in zip(scores, same, strict=True):
        if mates.any():
            for k, hit in hits.items():
                hit.append(mates[np.argsort(-row)[:k]].any())
    got = rank_accuracy(outcome_of_scores(scores, same), [1, 3])
    np.testing.assert_allclose(got, [np.mean(hits[1]), np.mean(hits[3])])
    assert 0 < got[0] < got[1]


def test_ranks_that_the_search_did_not_reach_are_not_known(people):
    probes, probe_ids, gallery, gallery_ids = people
    found = search(probes, probe_ids, gallery, gallery_ids, k=2)
    outcome = outcome_of_search(found, probe_ids)
    whole = outcome_of_scores(*matrix(people))
    np.testing.assert_allclose(
        rank_accuracy(outcome, [1, 2]), rank_accuracy(whole, [1, 2])
    )
    for ranks in ([3], [1, 10], [0]):
        with pytest.raises(ValueError, match="between 1 and .* kept, 2; got"):
            rank_accuracy(outcome, ranks)
    with pytest.raises(ValueError, match=r"open_set: ranks .* got \[3\]"):
        open_set(outcome, [0.1], ranks=(None, 3))
    # The whole gallery was searched: every mate stands among its 25 rows.
    assert rank_accuracy(whole, [30]) == 1


def test_a_tie_is_decided_by_the_lower_row():
    scores = np.zeros((2, 3))
    same = np.array([[0, 1, 0], [1, 0, 0]])
    np.testing.assert_array_equal(outcome_of_scores(scores, same).mate_rank, [1, 0])


def test_open_set_by_loop(people):
    scores, same = matrix(people)
    outcome = outcome_of_scores(scores, same)
    fpirs = [0.0, 0.2, 0.5, 1.0]
    result = open_set(outcome, fpirs, ranks=(None, 1))
    strangers = scores[~same.any(1)]
    for f, rate in enumerate(fpirs):
        at = result.threshold[f]
        assert (strangers.max(1) >= at).mean() == result.fpir[f] <= rate
        hit = {None: [], 1: []}
        for row, mates in zip(scores, same, strict=True):
            if mates.any():
                hit[None].append((row[mates] >= at).any())
                hit[1].append(mates[row.argmax()] and row.max() >= at)
        np.testing.assert_allclose(
            result.tpir[f], [np.mean(hit[None]), np.mean(hit[1])]
        )
    # With every alarm allowed only the rank counts.
    np.testing.assert_allclose(result.tpir[-1], [1, rank_accuracy(outcome, [1])[0]])


def test_threshold_is_the_lowest_that_keeps_the_rate():
    scores = np.array([0.1, 0.5, 0.5, 0.9], np.float32)
    for rate, alarms in ((0, 0), (0.25, 1), (0.5, 1), (0.74, 1), (0.75, 3), (1, 4)):
        at = alarm_threshold(scores, rate)
        assert (scores >= at).sum() == alarms
        lower = np.nextafter(np.float32(at), np.float32(-1)) if np.isfinite(at) else at
        assert alarms == 4 or (scores >= lower).mean() > rate
    # The official rule asks for a rounded number and lets ties through.
    assert alarm_threshold(scores, 0.5, rule="rounded") == np.float32(0.5)
    assert alarm_threshold(scores, 0.1, rule="rounded") > 0.9


def test_recall_at_false_matches():
    scores = np.array([[0.9, 0.2], [0.6, 0.5]])
    same = np.array([[1, 0], [0, 1]])
    recall, at = mate_recall_at_false_matches(scores, same, [0.5, 1.0])
    np.testing.assert_allclose(recall, [0.5, 1.0])
    np.testing.assert_allclose(at, [0.6, 0.2])


def test_errors(people):
    scores, same = matrix(people)
    outcome = outcome_of_scores(scores, same)
    with pytest.raises(ValueError, match="rank_accuracy: .* with a mate; got none"):
        rank_accuracy(outcome_of_scores(scores, 0 * same), [1])
    mated = same.any(1)
    with pytest.raises(ValueError, match="open_set: .* without a mate; got none among"):
        open_set(outcome_of_scores(scores[mated], same[mated]), [0.1])
    with pytest.raises(ValueError, match="unknown rule 'best'"):
        open_set(outcome, [0.1], rule="best")
    with pytest.raises(ValueError, match=r"rate must lie in \[0, 1\] .* got 2 and 1"):
        alarm_threshold(np.ones(1), 2)
    with pytest.raises(ValueError, match="must be finite; got 1 of 2"):
        alarm_threshold(np.array([0.1, np.nan]), 0.1)
    with pytest.raises(ValueError, match="exactly one mate"):
        mate_recall_at_false_matches(scores, same, [0.1])
    with pytest.raises(ValueError, match=r"allow between 1 and 2 false .* got \[0\]"):
        mate_recall_at_false_matches(np.ones((2, 2)), np.eye(2), [0.0])
    with pytest.raises(ValueError, match="matrices of one shape with at least one"):
        outcome_of_scores(np.ones((2, 0)), np.ones((2, 0)))
    scores[3, 1] = np.nan
    with pytest.raises(ValueError, match="got 1 of 40 rows .* first is row 3"):
        outcome_of_scores(scores, same)
