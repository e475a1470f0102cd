"""Bilinear sampling of images at arbitrary points."""

import jax
import jax.numpy as jnp

from kprpe_jax.geometry import affine


def sample_bilinear(images: jax.Array, points: jax.Array) -> jax.Array:
    """Interpolate images at points; differentiable in both.

    Outside the image everything is 0, and between the outermost pixel centres and
    one pixel further out the values fade linearly to it.

    Args:
      images: [B, H, W, C].
      points: [B, h, w, 2], (x, y) in pixel-centre coordinates: the centre of pixel
        i is at i, the image reaches from -0.5 to W - 0.5.
    Returns: float32 [B, h, w, C].
    Raises: ValueError: shapes that do not fit.
    """
    if images.ndim != 4 or points.ndim != 4 or points.shape[-1] != 2:
        raise ValueError(
            "sample_bilinear: images must be [B, H, W, C] and points [B, h, w, 2]; got "
            f"{images.shape} and {points.shape}; add the missing axes"
        )
    if images.shape[0] != points.shape[0]:
        raise ValueError(
            "sample_bilinear: images and points must have the same batch size; got "
            f"{images.shape[0]} and {points.shape[0]}; repeat one of them"
        )
    batch, height, width, channels = images.shape
    # A border of zeros, and points no further out than it, spare all masks.
    border = ((0, 0), (1, 1), (1, 1), (0, 0))
    padded = jnp.pad(images.astype(jnp.float32), border)
    flat = padded.reshape(batch, (height + 2) * (width + 2), channels)
    x = jnp.clip(points[..., 0].astype(jnp.float32), -1, width)
    y = jnp.clip(points[..., 1].astype(jnp.float32), -1, height)
    left, top = jnp.floor(x), jnp.floor(y)
    x, y = (x - left)[..., None], (y - top)[..., None]  # 0..1 between the pixels
    corner = (top.astype(jnp.int32) + 1) * (width + 2) + left.astype(jnp.int32) + 1

    # On the far border itself the next pixel has weight 0, whatever it is.
    def pixel(index: jax.Array) -> jax.Array:
        index = index.reshape(batch, -1, 1)
        values = jnp.take_along_axis(flat, index, axis=1, mode="clip")
        return values.reshape(*points.shape[:-1], channels)

    upper = pixel(corner) * (1 - x) + pixel(corner + 1) * x
    below = corner + width + 2
    lower = pixel(below) * (1 - x) + pixel(below + 1) * x
    return upper * (1 - y) + lower * y


def warp_affine(
    images: jax.Array, matrices: jax.Array, *, out_size: tuple[int, int]
) -> jax.Array:
    """Warp images by affine maps, bilinearly, zeros outside.

    Args:
      images: [B, H, W, C].
      matrices: [B, 2, 3], from OUTPUT pixels to INPUT pixels, in the pixel-edge
        coordinates of `affine`; pass `affine.invert` of the map that the content
        is to follow.
      out_size: (height, width) of the result.
    Returns: float32 [B, height, width, C].
    """
    height, width = out_size
    y, x = jnp.meshgrid(
        jnp.arange(height) + 0.5, jnp.arange(width) + 0.5, indexing="ij"
    )
    centers = jnp.stack([x, y], axis=-1)  # [height, width, 2], pixel-edge coordinates
    points = affine.apply(matrices[:, None], centers[None])  # [B, height, width, 2]
    return sample_bilinear(images, points - 0.5)
