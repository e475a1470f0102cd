"""Photos of any size, cut as they are read: detected, aligned, or in between.

Source: KP-RPE, Fig. 5, which interpolates the affine map from the detection to the
alignment. What a detection's crop is, is ours.
"""

import numpy as np
from PIL import Image

from kprpe_jax.geometry.point_fits import similarity_matrix
from kprpe_jax.geometry.template import face_template


def detection_matrix(
    points: np.ndarray, size: tuple[int, int], *, padding: float = 0.75
) -> np.ndarray:
    """Affine map to an upright crop around a face, as a detector's box is cut out.

    Args:
      points: [K, 2], (x, y) in pixels of the photo; their box is the face's.
      size: (height, width) of the crop; the box fills 1 / (1 + 2 padding) of the
        shorter side, 0.4 as it is (aligned faces: 0.37).
      padding: border on each side, in sides of the box.
    Returns: float64 [2, 3], from the photo's pixels to the crop's.
    """
    low, high = points.min(0), points.max(0)
    side = max(float((high - low).max()), 1.0)  # one point gives a crop around it
    scale = min(size) / (side * (1 + 2 * padding))
    offset = np.array(size[::-1]) / 2 - scale * (low + high) / 2
    return np.concatenate([scale * np.eye(2), offset[:, None]], axis=1)


def cut_face(
    photo: np.ndarray, keypoints: np.ndarray, size: tuple[int, int], share: float
) -> tuple[np.ndarray, np.ndarray]:
    """Cut a face out of a photo; bilinear, black outside.

    Args:
      photo: uint8 [h, w, 3].
      keypoints: [K, 2], (x, y) in fractions of the photo.
      size: (H, W) of the face's image.
      share: of the way from the crop of the detection (0) to the alignment (1); the map
        between is the mean of the two, so weighted.
    Returns: uint8 [H, W, 3]; float32 [K, 2], fractions of it.
    """
    height, width = photo.shape[:2]
    points = keypoints * np.array([width, height], np.float32)
    matrix = (1 - share) * detection_matrix(points, size)
    matrix += share * similarity_matrix(points, face_template(size))
    # Pillow wants the way back, in pixel-edge coordinates as ours are.
    back = np.linalg.inv(np.concatenate([matrix, [[0, 0, 1]]]))
    image = Image.fromarray(photo).transform(
        size[::-1], Image.Transform.AFFINE, back[:2].ravel(), Image.BILINEAR
    )
    moved = points @ matrix[:, :2].T + matrix[:, 2]
    return np.asarray(image), (moved / np.array(size[::-1])).astype(np.float32)
