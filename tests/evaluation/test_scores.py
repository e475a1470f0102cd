import numpy as np
import pytest

from kprpe_jax.evaluation.scores import (
    checked_scores,
    pair_distance,
    pair_similarity,
    stream_pair_similarity,
)


def test_cosine_and_distance(rng):
    a, b = rng.normal(size=(2, 7, 5)).astype(np.float32)
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    np.testing.assert_allclose(pair_similarity(a, b), cosine, atol=1e-6)
    np.testing.assert_allclose(pair_distance(a, b), 2 - 2 * cosine, atol=1e-6)


def test_zero_embeddings_are_like_nothing():
    zero, other = np.zeros((1, 3), np.float32), np.ones((1, 3), np.float32)
    assert pair_similarity(zero, other) == pair_similarity(zero, zero) == 0
    assert pair_distance(zero, other) == pair_distance(zero, zero) == 2


@pytest.mark.parametrize("length", [1e-30, 1e-12, 1e-9, 1e20, 1e37])
def test_opposites_are_opposite_however_long(length):
    first = np.array([[length, 0], [length, length]], np.float32)
    np.testing.assert_allclose(pair_distance(first, -first), 4, rtol=1e-6)
    np.testing.assert_allclose(pair_similarity(first, -first), -1, rtol=1e-6)


def test_labels_are_true_or_false():
    scores = np.arange(4.0)
    assert checked_scores("f", scores, [0, 1, 1, 0])[1].dtype == bool
    for bad in (-1, 2, np.nan):
        with pytest.raises(ValueError, match=f"f: same must be .* got {bad}"):
            checked_scores("f", scores, np.array([0, 1, bad, 0]))


@pytest.mark.parametrize("block", [4, 5, 100])
def test_blocks_are_the_whole(rng, block):
    x = rng.normal(size=(9, 4)).astype(np.float32)
    first, second = rng.integers(0, 9, (2, 13))
    parts = list(stream_pair_similarity(x, first, second, block=block))
    assert max(map(len, parts)) <= block
    whole = pair_similarity(x[first], x[second])
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-6)


def test_rows_that_are_not_there():
    x = np.ones((3, 2), np.float32)
    with pytest.raises(ValueError, match=r"lie in \[0, 3\); got 0 to 3; look them up"):
        stream_pair_similarity(x, np.array([0]), np.array([3]))
    with pytest.raises(ValueError, match=r"one length; got \(1,\) and \(2,\)"):
        stream_pair_similarity(x, np.array([0]), np.array([1, 2]))
