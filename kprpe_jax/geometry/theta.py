"""Pixel matrices to normalized sampling matrices and back.

A pixel matrix takes INPUT pixels to OUTPUT pixels, in the pixel-edge coordinates of
`affine`: it says where the content goes. A sampling matrix, theta, takes normalized
OUTPUT (x, y) to normalized INPUT (x, y): it says what an output pixel shows.
"""

import jax
import jax.numpy as jnp

from kprpe_jax.geometry import affine

Size = tuple[int, int]  # (height, width)


def sampling_matrix(
    matrix: jax.Array, *, in_size: Size, out_size: Size, align_corners: bool = False
) -> jax.Array:
    """Theta of a pixel matrix.

    Args:
      matrix: [..., 2, 3], input pixels to output pixels; one without an inverse gives
        what `affine.invert` says, a finite theta that shows one place everywhere.
      in_size, out_size: (height, width) of the images.
      align_corners: -1 and 1 are the centers of the outermost pixels, else their edges.
    Returns: float32 [..., 2, 3].
    Raises: ValueError: an image one pixel wide or high with `align_corners`.
    """
    into, out = (_normalizer(size, align_corners) for size in (in_size, out_size))
    return affine.compose(affine.invert(out), affine.invert(matrix), into)


def pixel_matrix(
    theta: jax.Array, *, in_size: Size, out_size: Size, align_corners: bool = False
) -> jax.Array:
    """Pixel matrix of a theta; the inverse of `sampling_matrix`.

    Args:
      theta: [..., 2, 3], normalized output to normalized input.
      in_size, out_size: (height, width) of the images.
      align_corners: -1 and 1 are the centers of the outermost pixels, else their edges.
    Returns: float32 [..., 2, 3], input pixels to output pixels.
    Raises: ValueError: an image one pixel wide or high with `align_corners`.
    """
    into, out = (_normalizer(size, align_corners) for size in (in_size, out_size))
    return affine.invert(affine.compose(out, theta, affine.invert(into)))


def _normalizer(size: Size, align_corners: bool) -> jax.Array:
    """Matrix [2, 3] from pixel-edge coordinates of an image to its [-1, 1]."""
    if align_corners and min(size) < 2:
        raise ValueError(
            "sampling matrices: an image must have two pixels each way for "
            f"align_corners=True; got size {size}; use align_corners=False"
        )
    height, width = size
    lost = 1.0 if align_corners else 0.0  # half a pixel at either end
    x, y = 2 / (width - lost), 2 / (height - lost)
    return jnp.array([[x, 0, -1 - x * lost / 2], [0, y, -1 - y * lost / 2]])
