"""Assignment maps and the weight of each image, with the images."""

import pathlib

import matplotlib

matplotlib.use("Agg")  # files only, on any machine
import matplotlib.pyplot as plt
import numpy as np


def plot_assignments(
    images: np.ndarray,
    assignment: np.ndarray,
    importance: np.ndarray,
    weights: dict[str, np.ndarray],
    path: str | pathlib.Path,
) -> None:
    """Draw a set: images, assignment map with the clusters' importance, weights.

    Source: Cluster and Aggregate, Fig. 5 and Supp. F and G.

    Args:
      images: uint8 [N, H, W, 3].
      assignment: A [M, N].
      importance: P averaged over channels, [M].
      weights: method -> weight of each image [N].
      path: of the PNG.
    Raises: ValueError: numbers of images or clusters that differ.
    """
    number, clusters = len(images), len(importance)
    sizes = {name: np.shape(w) for name, w in weights.items()}
    if assignment.shape != (clusters, number) or set(sizes.values()) != {(number,)}:
        raise ValueError(
            "plot_assignments: assignment must be [M, N], importance [M] and each "
            f"method's weights [N] for N = {number} images; got {assignment.shape}, "
            f"{importance.shape} and {sizes}; take them of one set"
        )
    heights = [1.1, 0.35 * clusters, 0.9]
    figure, axes = plt.subplots(
        3,
        1,
        figsize=(0.55 * number + 1.5, sum(heights) + 0.6),
        height_ratios=heights,
        layout="constrained",
    )
    height, width = images.shape[1:3]
    axes[0].imshow(np.concatenate(list(images), axis=1), aspect="auto")
    axes[0].set(xticks=[], yticks=[], xlim=(0, number * width), ylim=(height, 0))
    axes[0].set_title("images", fontsize=8, loc="left")
    axes[1].imshow(assignment, aspect="auto", cmap="viridis", vmin=0, vmax=1)
    names = [f"cluster {m + 1}, P = {p:.2f}" for m, p in enumerate(importance)]
    axes[1].set_yticks(range(clusters), names, fontsize=7)
    axes[1].set(xticks=[])
    axes[1].set_title("assignment map A (columns sum to 1)", fontsize=8, loc="left")
    share = 0.8 / len(weights)
    for place, (name, values) in enumerate(weights.items()):
        at = np.arange(number) + (place - (len(weights) - 1) / 2) * share
        axes[2].bar(at, values, share, label=name)
    axes[2].set(xlim=(-0.5, number - 0.5), xticks=[])
    axes[2].tick_params(labelsize=7)
    axes[2].legend(fontsize=7)
    axes[2].set_title("weight of each image", fontsize=8, loc="left")
    figure.savefig(path, dpi=110)
    plt.close(figure)
