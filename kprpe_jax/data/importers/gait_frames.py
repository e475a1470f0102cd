"""Frames of a sequence to the size of a data set, joints along."""

import numpy as np
from PIL import Image

FITS = ("height", "person")
_BRIGHT = 32  # of 255: more is the person


def fit_frames(
    frames: np.ndarray, points: np.ndarray, *, size: tuple[int, int], fit: str
) -> tuple[np.ndarray, np.ndarray]:
    """Bring frames to one size.

    Args:
      frames: uint8 [T, h, w], 0..255, each with some person in it.
      points: float32 [T, 17, 2], pixels of these frames, edges at 0 and w.
      size: (H, W) wanted.
      fit: "height": frames that have H rows and at least W columns lose columns on both
        sides, as officially; "person": every frame is cut to its person, scaled to H
        rows, and centered on the person's median column.
    Returns: uint8 [T, H, W]; float32 [T, 17, 2], fractions of the new frame.
    Raises: ValueError: with "height", frames of another size.
    """
    height, width = size
    if fit == "height":
        if frames.shape[1] != height or frames.shape[2] < width:
            raise ValueError(
                f"frames must have {height} rows and at least {width} columns; got "
                f"{frames.shape[1]} x {frames.shape[2]}"
            )
        left = (frames.shape[2] - width) // 2
        cut, moved = frames[:, :, left : left + width], points - [left, 0]
    else:
        pairs = [_fit_person(f, p, size) for f, p in zip(frames, points, strict=True)]
        cut, moved = (np.stack(part) for part in zip(*pairs, strict=True))
    return np.ascontiguousarray(cut), (moved / [width, height]).astype(np.float32)


def has_person(frames: np.ndarray) -> np.ndarray:
    """Which of the frames [T, h, w] show anything, bool [T]."""
    return (frames > _BRIGHT).any((1, 2))


def _fit_person(
    frame: np.ndarray, points: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Source: the official preprocessing of silhouettes, but for its rounding."""
    height, width = size
    bright = frame > _BRIGHT
    rows = np.flatnonzero(bright.any(1))
    top, bottom = rows[0], rows[-1] + 1
    mass = np.cumsum(bright[top:bottom].sum(0))
    middle = np.searchsorted(mass, mass[-1] / 2) + 0.5
    zoom = height / (bottom - top)
    reach = width / 2 / zoom  # columns on both sides of the middle
    border = int(reach) + 1
    wide = Image.fromarray(np.pad(frame, ((0, 0), (border, border))))
    left = border + middle - reach
    box = (left, top, left + 2 * reach, bottom)
    # Pillow averages where it shrinks.
    fitted = wide.resize((width, height), Image.Resampling.BILINEAR, box)
    return np.asarray(fitted), zoom * (points - [middle - reach, top])
