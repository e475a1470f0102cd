"""Keypoints rendered into images."""

import jax
import jax.numpy as jnp

RADIUS = 1.5  # pixels, of the discs


def draw_keypoints(
    images: jax.Array,
    keypoints: jax.Array,
    *,
    radius: float = RADIUS,
    value: float = 1.0,
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
