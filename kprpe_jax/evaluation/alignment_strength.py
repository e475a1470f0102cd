"""How strongly faces are aligned: the scatter of their landmarks.

Source: Balanced Alignment, Eq. 1.
"""

import numpy as np


def alignment_nme(landmarks: np.ndarray, *, eyes: tuple[int, int]) -> float:
    """Alignment normalized mean error, ANME: low is strong alignment.

    Source: Balanced Alignment, Eq. 1.
    Args:
      landmarks: [N, S, 2], of the aligned faces, in pixels or any unit with equal axes.
      eyes: the two pupils among them.
    Returns: mean distance of the landmarks from their means over faces, divided by the
      mean distance of the pupils; 0 for one face.
    Raises: ValueError: another shape, landmarks that are not finite, no face, eyes that
      coincide in every face.
    """
    points = np.asarray(landmarks, np.float64)
    if points.ndim != 3 or points.shape[-1] != 2 or not points.size:
        raise ValueError(
            f"alignment_nme: landmarks must be [N, S, 2] of at least one face; got "
            f"{points.shape}; give those of the aligned faces"
        )
    if not np.isfinite(points).all():
        bad = np.flatnonzero(~np.isfinite(points).all((1, 2)))
        raise ValueError(
            f"alignment_nme: landmarks must be finite; got others in {len(bad)} faces, "
            f"such as {bad[0]}; their warp has no inverse there"
        )
    left, right = eyes
    distance = np.linalg.norm(points[:, left] - points[:, right], axis=-1).mean()
    if distance == 0:
        raise ValueError(
            "alignment_nme: the eyes must lie apart; they coincide in every face; give "
            "the indices of the two pupils"
        )
    scatter = np.linalg.norm(points - points.mean(0), axis=-1)
    return float(scatter.mean() / distance)
