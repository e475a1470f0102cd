"""Layouts of landmarks by their number: which of them make the five keypoints.

| points | layout |
|---|---|
| 5 | the keypoints themselves |
| 68 | iBUG 300-W |
| 84 | synthetic faces, `synthetic.landmarks` |
| 468 | FaceMesh, `detection.face_mesh` |

Tables of other numbers (17, 29, ...) are landmarks without keypoints.
"""

import numpy as np
from scipy.optimize import linear_sum_assignment

from kprpe_jax.data.synthetic.landmarks import KEYPOINTS, NUM_LANDMARKS
from kprpe_jax.detection.face_mesh import FIVE_POINTS, IBUG_POINTS, MESH_POINTS
from kprpe_jax.geometry.point_fits import similarity_matrix

NUM_KEYPOINTS = 5
_MIRROR_STEPS = 10
_MIRROR_FAR = 0.15  # distance of a point to its partner's mirror image, in face sizes
# Number of landmarks -> those whose mean is each of the five.
_FIVE = {
    len(IBUG_POINTS): (range(36, 42), range(42, 48), (30,), (48,), (54,)),
    NUM_LANDMARKS: tuple((point,) for point in KEYPOINTS.tolist()),
    MESH_POINTS: FIVE_POINTS,
}


def five_keypoints(landmarks: np.ndarray) -> np.ndarray | None:
    """The five keypoints of a face's landmarks.

    Args:
      landmarks: [K, 2]; NaN = missing.
    Returns: float32 [5, 2]; None where the layout is not known or points that it needs
      are missing.
    """
    if len(landmarks) == NUM_KEYPOINTS:
        five = np.asarray(landmarks, np.float32)
    elif len(landmarks) in _FIVE:
        groups = _FIVE[len(landmarks)]
        five = np.stack([landmarks[list(group)].mean(0) for group in groups])
    else:
        return None
    return None if np.isnan(five).any() else five.astype(np.float32)


def mirror_order(shapes: np.ndarray) -> tuple[int, ...] | None:
    """Which landmarks are each other's mirror images, as the faces show it.

    Each face, aligned to the mean, is mirrored and laid on itself; the pairs with the
    least squared distances in all are found by assignment, then the mirrored faces are
    fitted by them, until they stay. Faces turned to both sides cancel out.

    Args:
      shapes: [N, K, 2], landmarks of faces that are about upright, (x, y); NaN =
        missing.
    Returns: K places, as `augment` takes them; None where the points do not pair: a
      landmark without known places, or a layout that differs from side to side.
    """
    shapes = np.asarray(shapes, float)
    if not np.isfinite(shapes).any(0).all():
        return None
    shapes = _aligned_shapes(shapes)
    mean = shapes.mean(0)
    mirrored = shapes * (-1, 1)
    mirrored += mean.mean(0) - mirrored.mean((0, 1))
    order = None
    for _ in range(_MIRROR_STEPS):
        found = linear_sum_assignment(_mean_squares(shapes, mirrored))[1]
        if order is not None and (found == order).all():
            break
        order = found
        matrix = similarity_matrix(mirrored.mean(0)[order], mean)
        mirrored = mirrored @ matrix[:, :2].T + matrix[:, 2]
    size = np.sqrt(np.square(mean - mean.mean(0)).sum(-1).mean())
    apart = np.linalg.norm(mean - mirrored.mean(0)[order], axis=-1)
    pairs = order[order] == np.arange(len(order))
    if apart.max() > _MIRROR_FAR * size or not pairs.all():
        return None
    return tuple(order.tolist())


def _aligned_shapes(shapes: np.ndarray) -> np.ndarray:
    """Shapes [N, K, 2] brought to their mean by similarities, without gaps."""
    mean = np.nanmean(shapes, 0)
    aligned = []
    for shape in shapes:
        known = np.isfinite(shape).all(-1)
        if known.sum() > 1:
            matrix = similarity_matrix(shape[known], mean[known])
            aligned.append(shape @ matrix[:, :2].T + matrix[:, 2])
    aligned = np.stack(aligned) if aligned else mean[None]
    found = np.isfinite(aligned)
    count = np.maximum(found.sum(0), 1)
    mean = np.where(found.any(0), np.where(found, aligned, 0).sum(0) / count, mean)
    return np.where(found, aligned, mean)


def _mean_squares(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Mean squared distance over N faces of each point to each, [K, K]."""
    products = np.einsum("nkc,njc->kj", first, second, optimize=True) / len(first)
    squares = (np.square(x).sum(-1).mean(0) for x in (first, second))
    return np.add.outer(*squares) - 2 * products
