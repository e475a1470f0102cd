"""The curve against counting, its numbers against their definitions."""

import numpy as np
import pytest

from kprpe_jax.evaluation.roc import (
    area_under_curve,
    equal_error_rate,
    roc_curve,
    tar_at_far,
)


@pytest.fixture
def pairs(rng):
    """Scores with many ties."""
    same = rng.random(400) < 0.3
    return np.round(rng.normal(size=400) + same, 1).astype(np.float32), same


def rates(scores, same, threshold):
    """TAR and FAR, pair by pair."""
    accepted = [score >= threshold for score in scores]
    counts = {True: 0, False: 0}
    for hit, kind in zip(accepted, same, strict=True):
        counts[bool(kind)] += hit
    return counts[True] / same.sum(), counts[False] / (~same).sum()


def test_every_point_is_what_counting_gives(pairs):
    scores, same = pairs
    roc = roc_curve(scores, same)
    np.testing.assert_array_equal(roc.threshold[1:], np.unique(scores)[::-1])
    for far, tar, threshold in zip(*roc, strict=True):
        assert (tar, far) == pytest.approx(rates(scores, same, threshold))
    assert (roc.far[0], roc.tar[0], roc.far[-1], roc.tar[-1]) == (0, 0, 1, 1)


def test_tar_at_far_is_the_best_allowed_point(pairs):
    scores, same = pairs
    roc = roc_curve(scores, same)
    fars = [0.0, 1e-6, 0.01, 0.1, 0.5, 1.0]
    read = tar_at_far(roc, fars)
    for i, wanted in enumerate(fars):
        reached = [rates(scores, same, t) for t in roc.threshold]
        best = max(tar for tar, far in reached if far <= wanted)
        assert read.tar[i] == pytest.approx(best)
        assert rates(scores, same, read.threshold[i]) == (
            pytest.approx(read.tar[i]),
            pytest.approx(read.far[i]),
        )


def test_nearest_may_exceed_the_wanted_far():
    scores, same = np.array([0.9, 0.8, 0.7, 0.6]), np.array([0, 1, 0, 1])
    roc = roc_curve(scores, same)  # FAR 0, 1/2, 1
    assert tar_at_far(roc, [0.4]).far == 0.0
    assert tar_at_far(roc, [0.4], choose="nearest").far == 0.5
    # At a tie of the distance the larger FAR is taken, and there the larger TAR.
    tie = tar_at_far(roc, [0.25], choose="nearest")
    assert (tie.far, tie.tar) == (0.5, 0.5)


def test_a_far_below_one_impostor_is_read_at_zero(pairs):
    read = tar_at_far(roc_curve(*pairs), [1e-6])
    assert read.far == 0
    assert read.tar >= 0


def test_thinned_curve_keeps_its_bends():
    scores = np.arange(6.0)[::-1]
    same = np.array([1, 1, 1, 0, 0, 0])
    roc = roc_curve(scores, same, points="thinned")
    np.testing.assert_allclose(roc.tar, [0, 1 / 3, 1, 1])
    np.testing.assert_allclose(roc.far, [0, 0, 0, 1])
    assert area_under_curve(roc) == area_under_curve(roc_curve(scores, same)) == 1


def test_area_is_the_probability_of_the_right_order(pairs):
    scores, same = pairs
    genuine, impostor = scores[same][:, None], scores[~same]
    wins = (genuine > impostor).mean() + 0.5 * (genuine == impostor).mean()
    assert area_under_curve(roc_curve(scores, same)) == pytest.approx(wins)


def test_equal_error_rate():
    # FAR 1/4 and 1 - TAR 1/4 at the threshold 0.5.
    scores = np.array([0.9, 0.8, 0.7, 0.2, 0.6, 0.4, 0.3, 0.1])
    same = np.array([1, 1, 1, 1, 0, 0, 0, 0])
    assert equal_error_rate(roc_curve(scores, same)) == pytest.approx(0.25)
    assert equal_error_rate(roc_curve(scores, 1 - same)) == pytest.approx(0.75)
    # All tied: one step from (0, 0) to (1, 1), crossed in its middle.
    assert equal_error_rate(roc_curve(np.zeros(8), same)) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("scores", "same", "match"),
    [
        ([0.1, np.nan], [0, 1], "finite; got 1 of 2 rows .* first is row 1"),
        ([0.1, 0.2], [1, 1], "genuine and impostor pairs; got 2 and 0"),
        ([0.1, 0.2], [1], r"one length; got \(2,\) and \(1,\)"),
        ([], [], "genuine and impostor pairs; got 0 and 0"),
    ],
)
def test_bad_pairs(scores, same, match):
    with pytest.raises(ValueError, match=match):
        roc_curve(np.array(scores), np.array(same))


def test_bad_options(pairs):
    with pytest.raises(ValueError, match="unknown points 'some'"):
        roc_curve(*pairs, points="some")
    roc = roc_curve(*pairs)
    with pytest.raises(ValueError, match="unknown choice 'best'"):
        tar_at_far(roc, [0.1], choose="best")
    with pytest.raises(ValueError, match=r"lie in \[0, 1\]; got \[1.5\]"):
        tar_at_far(roc, [1.5])
