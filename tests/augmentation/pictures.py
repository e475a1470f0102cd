"""Pictures for the tests of augmentation, and the way from and to Pillow."""

import numpy as np
from PIL import Image


def picture(
    rng: np.random.Generator, size: tuple[int, int] = (20, 24), *, low=0, high=255
) -> Image.Image:
    """Smooth shades with grain, levels low..high, different in every channel."""
    height, width = size
    y, x = np.mgrid[:height, :width]
    phases = rng.uniform(0, 6, (3, 2))
    shades = [np.sin(x / 5 + p) + np.cos(y / 4 + q) for p, q in phases]
    levels = np.stack(shades, -1) / 4 + 0.5 + rng.normal(0, 0.05, (height, width, 3))
    levels = low + (high - low) * np.clip(levels, 0, 1)
    return Image.fromarray(np.rint(levels).astype(np.uint8))


def to_float(image: Image.Image) -> np.ndarray:
    return np.asarray(image, np.float32) / np.float32(127.5) - 1


def to_levels(image) -> np.ndarray:
    return (np.asarray(image, np.float64) + 1) * 127.5
