"""Photos of any size, cut as they are read: detected, aligned, or in between.

Source: KP-RPE, Fig. 5, which interpolates the affine map from the detection to the
alignment. What a detection's crop is, is ours.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from kprpe_jax.data.faces import FaceRows
from kprpe_jax.data.importers.decode import decode_rgb
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


class AlignedFaces(FaceRows):
    """Rows as `FaceRows` gives them, from photos of any size that have keypoints.

    Args:
      source: rows of an imported data set (`store.open_split`).
      image_size: (H, W) of the rows.
      share: of the way from the crop of the detection (0) to the alignment (1); the
        map between is the mean of the two, so weighted. Bilinear, black outside.
      rows, first_label: of `FaceRows`.
    """

    def __init__(
        self,
        source: Sequence,
        *,
        image_size: tuple[int, int],
        share: float = 1.0,
        rows: np.ndarray | None = None,
        first_label: int = 0,
    ):
        super().__init__(
            source,
            image_size=image_size,
            rows=rows,
            first_label=first_label,
            needs_keypoints=True,
        )
        self._share = share

    @classmethod
    def of(cls, faces: FaceRows, share: float = 1.0) -> "AlignedFaces":
        """The same rows, cut."""
        return cls(
            faces._source,
            image_size=faces._shape[:2],
            share=share,
            rows=faces._rows,
            first_label=faces._first_label,
        )

    def _decode(self, row: int, encoded: dict[str, np.ndarray]) -> dict:
        self._check_keypoints(row, encoded)
        photo = decode_rgb(encoded["image"].item())
        height, width = photo.shape[:2]
        size = self._shape[:2]
        points = encoded["keypoints"] * np.array([width, height], np.float32)
        matrix = (1 - self._share) * detection_matrix(points, size)
        matrix += self._share * similarity_matrix(points, face_template(size))
        # Pillow wants the way back, in pixel-edge coordinates as ours are.
        back = np.linalg.inv(np.concatenate([matrix, [[0, 0, 1]]]))
        image = Image.fromarray(photo).transform(
            size[::-1], Image.Transform.AFFINE, back[:2].ravel(), Image.BILINEAR
        )
        moved = points @ matrix[:, :2].T + matrix[:, 2]
        label = encoded["label"].astype(np.int32)
        return {
            "image": np.asarray(image),
            "label": label if label < 0 else label - np.int32(self._first_label),
            "keypoints": (moved / np.array(size[::-1])).astype(np.float32),
            "has_keypoints": encoded["has_keypoints"],
            "id": np.int32(row),
        }
