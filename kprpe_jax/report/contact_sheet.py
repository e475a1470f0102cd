"""Many small pictures on one sheet."""

import pathlib
from collections.abc import Sequence

import matplotlib

matplotlib.use("Agg")  # files only, on any machine
import matplotlib.pyplot as plt
import numpy as np


def plot_contact_sheet(
    images: np.ndarray,
    path: str | pathlib.Path,
    *,
    points: np.ndarray | None = None,
    row_titles: Sequence[str] = (),
    column_titles: Sequence[str] = (),
) -> None:
    """Draw a grid of images, with points on them if given.

    Args:
      images: uint8 [R, C, H, W, 3].
      path: of the PNG.
      points: [R, C, K, 2], fractions of width and height; NaN points are left out.
      row_titles: R or none.
      column_titles: C or none.
    Raises: ValueError: shapes or numbers of titles that do not fit.
    """
    images = np.asarray(images)
    if images.ndim != 5 or images.shape[-1] != 3 or images.dtype != np.uint8:
        raise ValueError(
            "plot_contact_sheet: images must be uint8 [R, C, H, W, 3]; got "
            f"{images.dtype} {images.shape}; reshape or convert them"
        )
    rows, columns, height, width, _ = images.shape
    if points is not None and np.shape(points)[:2] != (rows, columns):
        raise ValueError(
            f"plot_contact_sheet: points must be [{rows}, {columns}, K, 2] as the "
            f"images are; got {np.shape(points)}; give some for every image"
        )
    for name, titles, count in (
        ("row_titles", row_titles, rows),
        ("column_titles", column_titles, columns),
    ):
        if len(titles) not in (0, count):
            raise ValueError(
                f"plot_contact_sheet: {name} must be none or {count}; got "
                f"{len(titles)}; give one for each"
            )
    figure, axes = plt.subplots(
        rows, columns, figsize=(columns, rows * height / width), squeeze=False
    )
    for place, axis in np.ndenumerate(axes):
        axis.imshow(images[place], extent=(0, 1, 1, 0), aspect="auto")
        if points is not None:
            axis.scatter(*np.asarray(points[place]).T, s=0.6, c="cyan", linewidths=0)
        axis.set(xlim=(0, 1), ylim=(1, 0), xticks=[], yticks=[])
        axis.set_frame_on(False)
    for axis, title in zip(axes[0], column_titles, strict=False):
        axis.set_title(title, fontsize=7, pad=2)
    for axis, title in zip(axes[:, 0], row_titles, strict=False):
        axis.set_ylabel(title, fontsize=7, labelpad=2)
    figure.subplots_adjust(wspace=0.02, hspace=0.02, left=0.03, right=0.995)
    figure.savefig(path, dpi=112, bbox_inches="tight", pad_inches=0.05)
    plt.close(figure)
