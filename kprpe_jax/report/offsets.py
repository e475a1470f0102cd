"""Pictures of learned attention offsets B_ij with the keypoints marked.

Source: KP-RPE, Figs. 12 and 13.
"""

import pathlib
from collections.abc import Sequence

import matplotlib

matplotlib.use("Agg")  # files only, on any machine
import matplotlib.pyplot as plt
import numpy as np


def plot_offsets(
    bias: Sequence[np.ndarray],
    images: np.ndarray,
    keypoints: np.ndarray,
    path: str | pathlib.Path,
    *,
    grid: tuple[int, int],
    query: tuple[int, int],
    layers: Sequence[int],
    heads: Sequence[int] = (0,),
) -> None:
    """Draw the offsets of one query for several images, layers and heads.

    A row per image: the image, then its offsets to every key, darker = attended more.
    The star is the query, the circles are the keypoints.

    Args:
      bias: per layer, float32 [1 or B, 1 or H, N, N], from `ViT.bias`.
      images: [B, H, W, 3] in [-1, 1].
      keypoints: [B, K, 2], fractions of the image.
      path: of the picture.
      grid: (rows, columns) of tokens.
      query: (row, column) of the query token.
      layers, heads: which to draw, a column for each pair.
    Raises: ValueError: the query lies outside the grid.
    """
    rows, columns = grid
    if not (0 <= query[0] < rows and 0 <= query[1] < columns):
        raise ValueError(
            f"plot_offsets: query must lie on the {rows} x {columns} grid; got {query}."
        )
    pairs = [(layer, head) for layer in layers for head in heads]
    size = (len(images), 1 + len(pairs))
    figure, axes = plt.subplots(
        *size, figsize=(1.6 * size[1], 1.7 * size[0]), squeeze=False
    )
    token = query[0] * columns + query[1]
    for index, (image, points) in enumerate(zip(images, keypoints, strict=True)):
        axes[index, 0].imshow((image + 1) / 2, extent=(0, 1, 1, 0))
        _mark(axes[index, 0], points, query, grid)
        for column, (layer, head) in enumerate(pairs, start=1):
            offsets = np.asarray(bias[layer])
            offsets = offsets[
                min(index, len(offsets) - 1), min(head, offsets.shape[1] - 1), token
            ]
            axes[index, column].imshow(
                offsets.reshape(grid), cmap="Blues", extent=(0, 1, 1, 0)
            )
            _mark(axes[index, column], points, query, grid)
            if index == 0:
                axes[0, column].set_title(f"layer {layer}, head {head}", fontsize=7)
    figure.tight_layout(pad=0.3)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _mark(axes, points: np.ndarray, query: tuple[int, int], grid: tuple[int, int]):
    axes.scatter(*points.T, s=14, facecolors="none", edgecolors="tab:orange")
    y, x = ((place + 0.5) / side for place, side in zip(query, grid, strict=True))
    axes.scatter([x], [y], marker="*", s=30, color="red")
    axes.set(xlim=(0, 1), ylim=(1, 0), xticks=[], yticks=[])
