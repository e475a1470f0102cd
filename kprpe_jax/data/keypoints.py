"""Keypoints of a foreground box, drawn into images, and perturbed.

The five points of a digit are the corners and the center of the smallest box
around its ink, in the order of a face's points: top-left (left eye), top-right
(right eye), center (nose), bottom-left and bottom-right (mouth corners).
"""

from typing import Literal

import jax
import jax.numpy as jnp

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


def draw_keypoints(
    images: jax.Array, keypoints: jax.Array, *, radius: float, value: float = 1.0
) -> jax.Array:
    """Draw keypoints into images as small discs.

    Source: kprpe, Fig. 1, the absolute encoding marked with a star, which sees
    the keypoints as part of the picture. The form of the marks is ours.

    Args:
      images: float [B, H, W, C].
      keypoints: [B, K, 2], (x, y) in 0..1 of width and height; points outside
        the image leave no mark.
      radius: of the discs, in pixels; a pixel is painted when its center is at
        most this far from a keypoint.
      value: painted into every channel, in the images' range.
    Returns: [B, H, W, C], the images' dtype.
    """
    height, width = images.shape[1:3]
    size = jnp.array([width, height], jnp.float32)
    points = keypoints.astype(jnp.float32) * size  # pixel-edge coordinates
    x = jnp.arange(width) + 0.5
    y = jnp.arange(height) + 0.5
    squared_x = (x - points[..., 0, None]) ** 2  # [B, K, W]
    squared_y = (y - points[..., 1, None]) ** 2  # [B, K, H]
    distance = squared_y[..., :, None] + squared_x[..., None, :]  # [B, K, H, W]
    painted = (distance <= radius**2).any(axis=1)
    return jnp.where(painted[..., None], jnp.asarray(value, images.dtype), images)


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
    "uniform" draws alpha anew for each coordinate from U(-alpha, alpha), which is
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
        draw = jax.random.uniform(rng, keypoints.shape, keypoints.dtype, -1.0, 1.0)
        return keypoints + alpha * draw * keypoints
    raise ValueError(
        f"perturb_keypoints: noise must be 'scale' or 'uniform'; got {noise!r}; "
        "choose one of the two"
    )
