"""The streamed TAR at FAR is that of the whole curve, to the last pair."""

import numpy as np
import pytest

from kprpe_jax.evaluation.roc import roc_curve, tar_at_far
from kprpe_jax.evaluation.streamed_roc import stream_tar_at_far

FARS = [0.0, 1e-6, 1e-3, 0.01, 0.1, 0.29, 0.999]


def in_chunks(scores, same, size=97):
    cuts = range(size, len(scores), size)
    return lambda: zip(np.split(scores, cuts), np.split(same, cuts), strict=True)


def assert_equals_whole(scores, same):
    whole = tar_at_far(roc_curve(scores, same), FARS)
    streamed = stream_tar_at_far(in_chunks(scores, same), FARS)
    for ours, theirs in zip(streamed, whole, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("decimals", [0, 1, 2, 7])
def test_equals_the_whole_curve(rng, decimals):
    """Negative and positive scores, with many ties and with none."""
    same = rng.random(3000) < 0.2
    scores = np.round(rng.normal(size=3000) / 3 + same / 2, decimals)
    assert_equals_whole(scores.astype(np.float32), same)


def test_scores_that_differ_in_the_last_bit(rng):
    """All lie in one bin of the first pass."""
    steps = rng.integers(0, 300, 500).astype(np.uint32)
    scores = (np.float32(0.5).view(np.uint32) + steps).view(np.float32)
    assert_equals_whole(scores, rng.random(500) < 0.5)


def test_ends_of_the_scale():
    scores = np.array([0.0, -0.0, 1.0, -1.0, 1e-30, -1e-30, 3e38, -3e38], np.float32)
    same = np.array([0, 1, 1, 0, 0, 1, 0, 1], bool)
    assert_equals_whole(scores, same)
    assert_equals_whole(scores, ~same)


def test_a_share_that_floats_cannot_hold():
    """0.29 of 100 impostors are 29 although 0.29 * 100 < 29 in float64."""
    scores = np.arange(200, dtype=np.float32)
    same = np.arange(200) % 2 == 0
    assert stream_tar_at_far(in_chunks(scores, same), [0.29]).far == 0.29


def test_no_genuine_pair_above_the_impostors():
    scores, same = np.array([1, 0], np.float32), np.array([False, True])
    tar, far, threshold = stream_tar_at_far(lambda: [(scores, same)], [0.5])
    assert (tar, far, threshold) == (0, 0, np.inf)


def test_errors():
    scores, same = np.array([0.1, 0.2], np.float32), np.array([0, 1])
    with pytest.raises(ValueError, match="got 2 and 0; add pairs of the missing kind"):
        stream_tar_at_far(lambda: [(scores, same | 1)], [0.1])
    with pytest.raises(ValueError, match="must be finite; got 1 of 2 rows"):
        stream_tar_at_far(lambda: [(scores * [1, np.nan], same)], [0.1])
    with pytest.raises(ValueError, match=r"lie in \[0, 1\); got \[1.0\]"):
        stream_tar_at_far(lambda: [(scores, same)], [1.0])
    spent = iter([(scores, same)])
    with pytest.raises(ValueError, match="same pairs twice; got 2 and then 0"):
        stream_tar_at_far(lambda: spent, [0.1])
