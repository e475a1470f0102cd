"""Weights of patches laid over a photo."""

import matplotlib
import numpy as np
from scipy import ndimage

matplotlib.use("Agg")  # files only, on any machine


def heat_map(
    image: np.ndarray, weights: np.ndarray, grid: tuple[int, int], *, share: float = 0.5
) -> np.ndarray:
    """A photo under a heat map: bilinear, from blue to red, smallest to largest weight.

    Source: DeepFace-EMD and Face-ViT, their code's pictures.
    Args:
      image: uint8 [H, W, 3].
      weights: float [N], row by row; all alike are shown as the smallest.
      grid: (rows, columns), N in all.
      share: of the colors.
    Returns: uint8 [H, W, 3].
    Raises: ValueError: weights that do not fit the grid or are not finite.
    """
    weights = np.asarray(weights, np.float64)
    if weights.shape != (grid[0] * grid[1],) or not np.isfinite(weights).all():
        raise ValueError(
            f"heat_map: weights must be {grid[0] * grid[1]} finite numbers, one per "
            f"patch of {grid}; got {weights.shape}; correct the grid or the weights."
        )
    span = weights.max() - weights.min()
    weights = (weights - weights.min()) / (span if span > 0 else 1.0)
    sizes = [n / m for n, m in zip(image.shape[:2], grid, strict=True)]
    large = ndimage.zoom(weights.reshape(grid), sizes, order=1)  # corners on corners
    colors = matplotlib.colormaps["jet"](large)[..., :3] * 255
    return np.rint(share * colors + (1 - share) * image).astype(np.uint8)


def framed(image: np.ndarray, color: tuple[int, int, int], width: int) -> np.ndarray:
    """An image uint8 [H, W, 3] with a frame of some pixels painted on its edge."""
    framed = np.empty_like(image)
    framed[:] = color
    inside = (slice(width, -width),) * 2
    framed[inside] = image[inside]
    return framed
