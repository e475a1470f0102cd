"""Keypoints of a foreground box, and perturbed keypoints.

The five points of a digit are the corners and the center of the smallest box
around its ink, in the order of a face's points: top-left (left eye), top-right
(right eye), center (nose), bottom-left and bottom-right (mouth corners).
"""

from typing import Literal

import jax

INK_THRESHOLD = 32  # of 255; brighter pixels are foreground ("ink")
BOX_POINTS = ((0.0, 0.0), (1.0, 0.0), (0.5, 0.5), (0.0, 1.0), (1.0, 1.0))  # of a box


def box_keypoints(images: jax.Array, *, threshold: float = INK_THRESHOLD) -> jax.Array:
    """Corners and center of the smallest box around each image's foreground.

    The box's edges are the outer edges of the outermost foreground pixels. An
    image without foreground gets the box of the whole image. Works on NumPy
    arrays too (and then returns one), so that data can be prepared without a
    device.

    Args:
      images: [B, H, W, C]; a pixel is foreground if any channel exceeds the
        threshold.
      threshold: in the images' own range; the default is for 0..255.
    Returns: float32 [B, 5, 2], (x, y) in 0..1 of width and height: top-left,
      top-right, center, bottom-left, bottom-right.
    """
    xp = images.__array_namespace__()
    height, width = images.shape[1:3]
    ink = (images > threshold).any(axis=-1)  # [B, H, W]
    rows, columns = ink.any(axis=2), ink.any(axis=1)
    # argmax of an empty row is 0: without ink the box is the whole image.
    top, bottom = rows.argmax(axis=1), height - rows[:, ::-1].argmax(axis=1)
    left, right = columns.argmax(axis=1), width - columns[:, ::-1].argmax(axis=1)
    corner = xp.stack([left, top], axis=-1)[:, None]
    extent = xp.stack([right - left, bottom - top], axis=-1)[:, None]
    points = corner + extent * xp.asarray(BOX_POINTS)
    return (points / xp.asarray([width, height])).astype("float32")


def perturb_keypoints(
    rng: jax.Array,
    keypoints: jax.Array,
    *,
    alpha: float,
    noise: Literal["scale", "uniform"] = "scale",
) -> jax.Array:
    """Move keypoints as a poor detector would.

    Source: kprpe, Eq. 12, L_pert = L + alpha * L. Taken literally ("scale") this
    moves all points away from the image's top-left corner by the same factor.
    "uniform" samples alpha anew for each coordinate from U(-alpha, alpha), which is
    noise in the usual sense.

    Args:
      rng: random key; unused by "scale".
      keypoints: [..., K, 2] in 0..1.
      alpha: >= 0; the paper goes up to 0.1.
      noise: "scale" or "uniform".
    Returns: [..., K, 2], may leave 0..1.
    Raises: ValueError: unknown noise.
    """
    if noise == "scale":
        return keypoints + alpha * keypoints
    if noise == "uniform":
        sampled = jax.random.uniform(rng, keypoints.shape, keypoints.dtype, -1.0, 1.0)
        return keypoints + alpha * sampled * keypoints
    raise ValueError(
        f"perturb_keypoints: noise must be 'scale' or 'uniform'; got {noise!r}; "
        "choose one of the two"
    )
