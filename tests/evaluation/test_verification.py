"""Fold accuracies against a loop over folds, thresholds and pairs."""

import numpy as np
import pytest

from kprpe_jax.evaluation.verification import (
    best_accuracy,
    centered_distances,
    fold_accuracy,
    fold_roc,
    fold_tar_at_far,
)


@pytest.fixture
def pairs(rng):
    same = rng.random(103) < 0.5
    return np.clip(rng.normal(1.6 - same, 0.5), 0, 4).astype(np.float32), same


def oracle(distances, same, num_folds, grid):
    """First best threshold of the other folds, accuracy of each fold."""
    folds = np.array_split(np.arange(len(same)), num_folds)
    accuracies, thresholds = [], []
    for fold in folds:
        rest = [i for i in range(len(same)) if i not in fold]
        right = [sum((distances[i] < t) == same[i] for i in rest) for t in grid]
        thresholds.append(grid[int(np.argmax(right))])
        accuracies.append(np.mean([(distances[i] < thresholds[-1]) == same[i]
                                   for i in fold]))  # fmt: skip
    return accuracies, thresholds


@pytest.mark.parametrize("num_folds", [2, 10])
def test_grid_equals_oracle(pairs, num_folds):
    result = fold_accuracy(*pairs, num_folds=num_folds)
    accuracies, thresholds = oracle(*pairs, num_folds, np.arange(0, 4, 0.01))
    np.testing.assert_allclose(result.accuracy, accuracies)
    np.testing.assert_allclose(result.threshold, thresholds)
    assert result.mean == pytest.approx(np.mean(accuracies))
    assert result.std == pytest.approx(np.std(accuracies))


def test_exact_thresholds_lie_between_the_distances(pairs):
    distances, same = pairs
    tight = distances / 1000  # the grid cannot tell these apart
    result = fold_accuracy(tight, same, thresholds="exact")
    wide = fold_accuracy(distances, same, thresholds="exact")
    np.testing.assert_allclose(result.accuracy, wide.accuracy)
    np.testing.assert_allclose(result.threshold, wide.threshold / 1000, rtol=1e-4)
    assert result.mean > fold_accuracy(tight, same).mean


def test_exact_is_at_least_as_good_on_the_other_folds(pairs):
    distances, same = pairs
    for fold, exact, grid in zip(
        np.array_split(np.arange(len(same)), 10),
        fold_accuracy(distances, same, thresholds="exact").threshold,
        fold_accuracy(distances, same).threshold,
        strict=True,
    ):
        rest = np.delete(np.arange(len(same)), fold)
        right = [((distances[rest] < t) == same[rest]).sum() for t in (exact, grid)]
        assert right[0] >= right[1]


def test_a_threshold_of_its_own_fold_is_not_used():
    """The held-out fold alone would choose another threshold."""
    distances = np.array([0.2, 2.0, 0.3, 2.1, 2.5, 3.5])
    same = np.array([1, 0, 1, 0, 1, 0])
    result = fold_accuracy(distances, same, num_folds=3)
    assert result.accuracy[2] == 0.5
    assert result.threshold[2] < 2.0


def test_mean_comes_from_the_other_folds(rng):
    first, second = rng.normal(size=(2, 20, 6)).astype(np.float32) + 3
    got = centered_distances(first, second, num_folds=5)
    for row, fold in zip(got, np.array_split(np.arange(20), 5), strict=True):
        rest = np.delete(np.arange(20), fold)
        mean = (first[rest].mean(0) + second[rest].mean(0)) / 2
        a, b = first - mean, second - mean
        cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        np.testing.assert_allclose(row, 2 - 2 * cosine, atol=1e-5)
    same = np.arange(20) % 2
    by_fold = fold_accuracy(got, same, num_folds=5)
    for f in range(5):
        alone = fold_accuracy(got[f], same, num_folds=5)
        assert by_fold.threshold[f] == alone.threshold[f]
        assert by_fold.accuracy[f] == alone.accuracy[f]


def test_fold_rates(pairs):
    distances, same = pairs
    tar, far = fold_roc(distances, same, np.array([0.0, 1.0, 4.1]), num_folds=4)
    folds = np.array_split(np.arange(len(same)), 4)
    want = [np.mean([(distances[f][same[f] == kind] < 1.0).mean() for f in folds])
            for kind in (True, False)]  # fmt: skip
    np.testing.assert_allclose([tar, far], [[0, want[0], 1], [0, want[1], 1]])


def test_fold_tar_is_zero_where_the_far_is_never_reached():
    distances = np.array([0.1, 3.999, 0.2, 3.9995, 0.3, 3.9999])
    same = np.array([1, 0, 1, 0, 1, 0])
    assert fold_tar_at_far(distances, same, far=1.0, num_folds=3) == (0, 0, 0)


def test_best_accuracy():
    scores, same = np.array([0.9, 0.6, 0.5, 0.4]), np.array([1, 0, 1, 0])
    assert best_accuracy(scores, same) == (0.75, pytest.approx(0.7))


def test_errors(pairs):
    distances, same = pairs
    with pytest.raises(ValueError, match="unknown thresholds 'fine'"):
        fold_accuracy(distances, same, thresholds="fine")
    with pytest.raises(
        ValueError, match="between 2 and the number of pairs, 103; got 1"
    ):
        fold_accuracy(distances, same, num_folds=1)
    with pytest.raises(ValueError, match="genuine and impostor pairs; got 103 and 0"):
        fold_accuracy(distances, np.ones(103))
    distances[7] = np.nan
    with pytest.raises(ValueError, match="fold_accuracy: values .* first is row 7"):
        fold_accuracy(distances, same)
    embeddings = np.full((4, 2), np.nan)
    with pytest.raises(ValueError, match="centered_distances: values must be finite"):
        centered_distances(embeddings, embeddings, num_folds=2)
