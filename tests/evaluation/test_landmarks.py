"""Landmark errors, worked out by hand."""

import numpy as np
import pytest

from kprpe_jax.evaluation.landmarks import (
    box_size,
    cumulative_errors,
    eye_distance,
    normalized_errors,
    summarize_errors,
)

LABELS = np.array([[[0, 0], [10, 0], [5, 5]], [[0, 0], [0, 20], [9, 9]]], float)


def test_normalizers():
    np.testing.assert_allclose(eye_distance(LABELS), [10, 20])
    boxes = np.array([[1, 1, 5, 10], [3, 3, 2, 9]])
    np.testing.assert_allclose(box_size(boxes), [6, 0])


def test_errors_of_moved_points():
    moved = LABELS + [[[3, 4], [0, 0], [0, 1]], [[0, 0], [0, 0], [0, 6]]]
    sizes = eye_distance(LABELS)
    np.testing.assert_allclose(normalized_errors(moved, LABELS, sizes), [0.2, 0.1])
    mask = np.array([[True, False, False], [True, True, True]])
    got = normalized_errors(
        moved, LABELS, sizes, labeled_mask=mask, found=np.array([True, False])
    )
    np.testing.assert_allclose(got, [0.5, np.inf])


def test_curve_and_summary():
    errors = np.array([0.05, 0.02, np.inf, 0.2])
    curve = cumulative_errors(errors, np.array([0.01, 0.02, 0.1, 1.0]))
    np.testing.assert_allclose(curve, [0, 0.25, 0.5, 0.75])
    got = summarize_errors(errors, failure=0.1)
    fine = np.linspace(0, 0.1, 100001)
    area = cumulative_errors(errors, fine).mean()
    want = dict(nme=0.09, median=0.05, failure_rate=0.5, auc=area, count=4, missing=1)
    assert got == pytest.approx(want, abs=1e-4)
    assert summarize_errors(np.full(2, np.inf))["failure_rate"] == 1
    assert np.isnan(summarize_errors(np.full(2, np.inf))["nme"])


def test_an_error_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="got NaN for 2 of 3 faces"):
        summarize_errors(np.array([0.1, np.nan, np.nan]))


def test_labels_of_other_images_are_refused():
    with pytest.raises(ValueError, match=r"got \(1, 3, 2\), \(2, 3, 2\) and \(2,\)"):
        normalized_errors(LABELS[:1], LABELS, np.ones(2))
    with pytest.raises(
        ValueError, match=r"positive normalizer; got none at rows \[1\]"
    ):
        normalized_errors(LABELS, LABELS, np.array([1.0, 0.0]))
