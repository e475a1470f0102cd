"""How far predicted landmarks are from labeled ones.

Source: KP-RPE, Supp. 3.1, which measures as RetinaFace does: the mean distance of the
points of a face, divided by the size of its box.
"""

import numpy as np


def eye_distance(points: np.ndarray) -> np.ndarray:
    """Normalizer of the alignment literature: distance of the eyes.

    Args:
      points: [N, K, 2], labeled, eyes first, in pixels.
    Returns: float64 [N]; small for faces in profile, whose errors it exaggerates.
    """
    points = np.asarray(points, np.float64)
    return np.linalg.norm(points[:, 0] - points[:, 1], axis=-1)


def box_size(boxes: np.ndarray) -> np.ndarray:
    """Normalizer of RetinaFace and KP-RPE: square root of the face box's area.

    Args:
      boxes: [N, 4], (left, top, right, bottom), labeled, in pixels.
    Returns: float64 [N].
    """
    left, top, right, bottom = np.asarray(boxes, np.float64).T
    return np.sqrt(np.maximum(right - left, 0) * np.maximum(bottom - top, 0))


def normalized_errors(
    predicted: np.ndarray,
    labeled: np.ndarray,
    normalizer: np.ndarray,
    *,
    found: np.ndarray | None = None,
    labeled_mask: np.ndarray | None = None,
) -> np.ndarray:
    """Normalized mean error of each face.

    Args:
      predicted: [N, K, 2], (x, y) in pixels or any unit with equal axes.
      labeled: [N, K, 2], in the same unit.
      normalizer: [N], lengths in the same unit, such as `box_size` or `eye_distance`.
      found: bool [N], False where no face was predicted; those get infinity.
      labeled_mask: bool [N, K], True where a point is labeled, as not all are in
        WIDER FACE; at least one per face.
    Returns: float64 [N].
    Raises: ValueError: shapes that differ, a normalizer that is not positive, a face
      without a label.
    """
    predicted, labeled = (np.asarray(a, np.float64) for a in (predicted, labeled))
    normalizer = np.asarray(normalizer, np.float64)
    if predicted.shape != labeled.shape or normalizer.shape != labeled.shape[:1]:
        raise ValueError(
            "normalized_errors: predicted and labeled must be [N, K, 2] and normalizer"
            f" [N]; got {predicted.shape}, {labeled.shape} and {normalizer.shape}; "
            "give the labels of these images"
        )
    mask = np.ones(labeled.shape[:2], bool) if labeled_mask is None else labeled_mask
    faulty = np.flatnonzero(~(normalizer > 0) | ~mask.any(1))
    if faulty.size:
        raise ValueError(
            "normalized_errors: every face must have a label and a positive normalizer;"
            f" got none at rows {faulty[:5].tolist()} ({faulty.size} in all); leave "
            "them out"
        )
    distances = np.linalg.norm(predicted - labeled, axis=-1)
    means = np.where(mask, distances, 0).sum(1) / mask.sum(1) / normalizer
    return means if found is None else np.where(found, means, np.inf)


def cumulative_errors(errors: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Cumulative error curve: the share of faces with at most each error.

    Args:
      errors: [N], infinity for a face that was not found.
      thresholds: [T].
    Returns: float64 [T], in 0..1.
    """
    errors = np.sort(errors)
    return np.searchsorted(errors, thresholds, side="right") / max(len(errors), 1)


def summarize_errors(errors: np.ndarray, *, failure: float = 0.1) -> dict[str, float]:
    """The usual numbers of a landmark benchmark.

    Args:
      errors: [N], infinity for a face that was not found; never NaN.
      failure: error above which a face counts as failed.
    Returns: `nme` and `median` over the faces found, `failure_rate` over all, `auc` the
      area under the cumulative curve up to `failure`, in 0..1; `count`, `missing`.
      NaN where no face is left to take the mean of.
    Raises: ValueError: an error is NaN.
    """
    errors = np.asarray(errors, np.float64)
    if np.isnan(errors).any():
        raise ValueError(
            f"summarize_errors: errors must be numbers; got NaN for "
            f"{np.isnan(errors).sum()} of {len(errors)} faces; find out which image "
            "made it, or give infinity for a face that was not found."
        )
    found = errors[np.isfinite(errors)]
    # The area in closed form: each face adds what is left of the threshold.
    area = np.maximum(failure - errors, 0).mean() / failure if errors.size else np.nan
    return {
        "nme": float(found.mean()) if found.size else float("nan"),
        "median": float(np.median(found)) if found.size else float("nan"),
        "failure_rate": float((errors > failure).mean()) if errors.size else np.nan,
        "auc": float(area),
        "count": len(errors),
        "missing": int(len(errors) - found.size),
    }
