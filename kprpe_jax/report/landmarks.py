"""Pictures of landmarks on photos, and of the faces aligned by them."""

import pathlib
from collections.abc import Sequence

import matplotlib

matplotlib.use("Agg")  # files only, on any machine
import matplotlib.pyplot as plt
import numpy as np


def plot_landmarks(
    rows: Sequence[tuple[np.ndarray, np.ndarray | None]],
    path: str | pathlib.Path,
    *,
    columns: int = 6,
) -> None:
    """Draw photos with their keypoints, image left in red, image right in cyan.

    Args:
      rows: photos [H, W, 3] in [-1, 1], each with its keypoints [K, 2] as fractions of
        it, or None; sizes may differ.
      path: of the picture.
      columns: photos side by side.
    Raises: ValueError: no photos.
    """
    if not rows:
        raise ValueError("plot_landmarks: there must be photos; got none; give some")
    columns = min(columns, len(rows))
    lines = -(-len(rows) // columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(1.6 * columns, 1.6 * lines), squeeze=False
    )
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, (photo, keypoints) in zip(axes.flat, rows, strict=False):
        axis.imshow(np.clip((photo + 1) / 2, 0, 1), extent=(0, 1, 1, 0), aspect="auto")
        if keypoints is not None:
            colors = ["red", "cyan", "yellow", "red", "cyan"][: len(keypoints)]
            colors += ["yellow"] * (len(keypoints) - len(colors))
            axis.scatter(*np.asarray(keypoints).T, s=8, c=colors)
        axis.set(xlim=(0, 1), ylim=(1, 0))
        axis.set_box_aspect(photo.shape[0] / photo.shape[1])
    figure.tight_layout(pad=0.2)
    figure.savefig(path, dpi=150)
    plt.close(figure)
