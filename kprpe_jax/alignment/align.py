"""Align faces on the device: similarity to the template, then sampling."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kprpe_jax.core.input_spec import BLACK
from kprpe_jax.geometry import affine
from kprpe_jax.geometry.grids import affine_grid
from kprpe_jax.geometry.point_fits import fit_similarity
from kprpe_jax.geometry.sampling import grid_sample, resize_bilinear
from kprpe_jax.geometry.template import face_template
from kprpe_jax.geometry.theta import sampling_matrix


class AlignedImages(NamedTuple):
    """Aligned faces.

    Attributes:
      images: float32 [B, h, w, C]; black where the photo ends.
      keypoints: float32 [B, 5, 2], (x, y) as fractions of the aligned image.
      theta: float32 [B, 2, 3], from normalized aligned image to normalized photo, -1
        and 1 at the edges.
    """

    images: jax.Array
    keypoints: jax.Array
    theta: jax.Array


def align_faces(
    images: jax.Array,
    keypoints: jax.Array,
    *,
    size: tuple[int, int] = (112, 112),
    template_size: tuple[int, int] | None = None,
    align_corners: bool = False,
    stop_gradient: bool = False,
) -> AlignedImages:
    """Align faces: bring their five points to the template by similarity maps.

    Args:
      images: [B, H, W, C], values in [-1, 1].
      keypoints: [B, 5, 2], (x, y) as fractions of the image. Five points in one place
        give a crop around them; points in mirrored order may shrink the photo's map to
        one color; both are finite, with finite gradients.
      size: (height, width) of the result.
      template_size: (height, width) of the image whose template points the face is
        brought to, in pixels of the result; None = `size`. The official aligner has
        the points of (112, 112) at every size.
      align_corners: sample as if theta were for the corner pixels' centers: up to half
        a pixel off, as the official aligner is.
      stop_gradient: no gradient reaches the keypoints, as in the official aligner.
    """
    height, width = images.shape[1:3]
    pixels = keypoints.astype(jnp.float32) * np.array([width, height], np.float32)
    if stop_gradient:
        pixels = jax.lax.stop_gradient(pixels)
    template = face_template(template_size or size)
    template = jnp.broadcast_to(template, pixels.shape)
    matrix = fit_similarity(pixels, template)
    theta = sampling_matrix(matrix, in_size=(height, width), out_size=size)
    grid = affine_grid(theta, size, align_corners=align_corners)
    sampled = grid_sample(images - BLACK, grid, align_corners=align_corners) + BLACK
    moved = affine.apply(matrix, pixels) / np.array(size[::-1], np.float32)
    return AlignedImages(sampled, moved, theta)


def pad_to_square(
    images: jax.Array, *, padding_ratio: float = 0.0
) -> tuple[jax.Array, tuple[int, int]]:
    """Add black around images until they are square.

    Args:
      images: [B, H, W, C], values in [-1, 1].
      padding_ratio: further border on each side, as a fraction of the square's side,
        in whole pixels rounded down.
    Returns: [B, S, S, C], and the (rows, columns) added above and to the left.
    """
    height, width = images.shape[1:3]
    side = max(height, width)
    border = int(side * padding_ratio)
    top, left = (side - height) // 2 + border, (side - width) // 2 + border
    rows = (top, side + 2 * border - height - top)
    columns = (left, side + 2 * border - width - left)
    padded = jnp.pad(images, ((0, 0), rows, columns, (0, 0)), constant_values=BLACK)
    return padded, (top, left)


def resize_square(images: jax.Array, side: int, *, align_corners: bool) -> jax.Array:
    """Resize square images, or leave them when they have the size already.

    Args:
      images: [B, S, S, C].
      side: of the result, in pixels.
      align_corners: the convention of `resize_bilinear`.
    Returns: [B, side, side, C]; float32, or unchanged.
    """
    if images.shape[1:3] == (side, side):
        return images
    return resize_bilinear(images, (side, side), align_corners=align_corners)
