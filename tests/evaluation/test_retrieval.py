import numpy as np
import pytest

from kprpe_jax.evaluation.retrieval import count_relevant, retrieval


def slow_metrics(found, own, relevant):
    hits = [x == own for x in found[:relevant]]
    precisions = [sum(hits[: i + 1]) / (i + 1) for i in range(relevant)]
    mean = sum(p for p, hit in zip(precisions, hits, strict=True) if hit) / relevant
    return float(found[0] == own), sum(hits) / relevant, mean


def test_query_by_query(rng):
    gallery = rng.integers(0, 4, 30)
    queries = rng.integers(0, 4, 12)
    found = np.stack([rng.permutation(gallery) for _ in queries])
    relevant = count_relevant(queries, gallery)
    got = np.stack(retrieval(found, queries, relevant), 1)
    for q, own in enumerate(queries):
        count = (gallery == own).sum()
        assert relevant[q] == count
        np.testing.assert_allclose(got[q], slow_metrics(found[q], own, count))


def test_hand_made():
    result = retrieval([[1, 2, 1, 9], [7, 7, 8, 9]], [1, 8], [3, 1])
    np.testing.assert_allclose(result.precision_at_1, [1, 0])
    np.testing.assert_allclose(result.r_precision, [2 / 3, 0])
    np.testing.assert_allclose(result.map_at_r, [(1 + 2 / 3) / 3, 0])


def test_count_relevant():
    np.testing.assert_array_equal(count_relevant([5, 2, 9], [2, 5, 5]), [2, 1, 0])
    own = count_relevant([5, 2, 9], [2, 5, 5], without_own=True)
    np.testing.assert_array_equal(own, [1, 0, 0])
    np.testing.assert_array_equal(count_relevant([5], []), [0])


def test_errors():
    with pytest.raises(ValueError, match=r"got \(1, 2\) and \(1,\) for 2 queries"):
        retrieval([[1, 2]], [1, 2], [1])
    with pytest.raises(ValueError, match="relevant image .* got 1 without; leave"):
        retrieval([[1], [2]], [1, 2], [1, 0])
    with pytest.raises(ValueError, match="3 ranks, the largest R; got 2; ask"):
        retrieval([[1, 2]], [1], [3])
