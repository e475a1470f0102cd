"""Affine maps of the plane as 2 x 3 matrices in pixels.

A matrix [A | t] takes a point p = (x, y) to A p + t. Points are in pixel-edge
coordinates: x runs from 0 at the left edge of the image to `width` at its right
edge, y downwards from 0 to `height`, and the center of pixel i is at i + 0.5, so
that x = width * (a keypoint's x). Sizes are (height, width) throughout.
"""

import jax
import jax.numpy as jnp

_SINGULAR = 1e-12


def translation(offset: jax.Array) -> jax.Array:
    """Matrix that moves points.

    Args:
      offset: [..., 2], (x, y) in pixels.
    Returns: float32 [..., 2, 3].
    """
    offset = jnp.asarray(offset, jnp.float32)
    eye = jnp.broadcast_to(jnp.eye(2), (*offset.shape[:-1], 2, 2))
    return jnp.concatenate([eye, offset[..., None]], axis=-1)


def rotation(degrees: jax.Array, center: jax.Array) -> jax.Array:
    """Matrix that turns points around a center.

    Args:
      degrees: [...]; positive turns the x axis toward the y axis, which is
        clockwise to the eye because y points down.
      center: [..., 2], (x, y) in pixels, stays in place.
    Returns: float32 [..., 2, 3].
    """
    angle = jnp.deg2rad(jnp.asarray(degrees, jnp.float32))
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return _about(_rows(cos, -sin, sin, cos), center)


def shear(coefficient: jax.Array, center: jax.Array) -> jax.Array:
    """Matrix that shifts each row sideways: x' = x + coefficient * (y - center_y).

    Args:
      coefficient: [...].
      center: [..., 2], (x, y) in pixels, stays in place.
    Returns: float32 [..., 2, 3].
    """
    coefficient = jnp.asarray(coefficient, jnp.float32)
    one, zero = jnp.ones_like(coefficient), jnp.zeros_like(coefficient)
    return _about(_rows(one, coefficient, zero, one), center)


def scaling(factors: jax.Array, center: jax.Array) -> jax.Array:
    """Matrix that expands along x and y.

    Args:
      factors: [..., 2], of x and of y.
      center: [..., 2], (x, y) in pixels, stays in place.
    Returns: float32 [..., 2, 3].
    """
    factors = jnp.asarray(factors, jnp.float32)
    zero = jnp.zeros_like(factors[..., 0])
    return _about(_rows(factors[..., 0], zero, zero, factors[..., 1]), center)


def compose(*matrices: jax.Array) -> jax.Array:
    """Matrix that applies the given ones from first to last.

    Args:
      *matrices: each [..., 2, 3], at least one.
    Returns: float32 [..., 2, 3].
    """
    result = matrices[0]
    for matrix in matrices[1:]:
        linear = jnp.matmul(
            matrix[..., :2], result, precision=jax.lax.Precision.HIGHEST
        )
        result = linear.at[..., 2].add(matrix[..., 2])
    return result


def invert(matrix: jax.Array) -> jax.Array:
    """Matrix of the inverse map.

    Args:
      matrix: [..., 2, 3].
    Returns: float32 [..., 2, 3]; zeros, with zero gradient, where the determinant is at
      most 1e-12: a map that shrinks a thousand pixels to a thousandth of one.
    Raises: ValueError: another shape.
    """
    if matrix.shape[-2:] != (2, 3):
        raise ValueError(f"invert: a matrix must be [..., 2, 3]; got {matrix.shape}.")
    (a, b, x), (c, d, y) = (
        (matrix[..., i, 0], matrix[..., i, 1], matrix[..., i, 2]) for i in range(2)
    )
    determinant = a * d - b * c
    regular = (jnp.abs(determinant) > _SINGULAR) | jnp.isnan(determinant)
    factor = jnp.where(regular, 1 / jnp.where(regular, determinant, 1), 0)
    linear = _rows(d, -b, -c, a) * factor[..., None, None]
    offset = -jnp.stack(
        [
            linear[..., 0, 0] * x + linear[..., 0, 1] * y,
            linear[..., 1, 0] * x + linear[..., 1, 1] * y,
        ],
        axis=-1,
    )
    return jnp.concatenate([linear, offset[..., None]], axis=-1)


def apply(matrix: jax.Array, points: jax.Array) -> jax.Array:
    """Move points.

    Args:
      matrix: [..., 2, 3].
      points: [..., K, 2], (x, y) in pixels.
    Returns: float32 [..., K, 2].
    """
    # Written out: at full precision on every device, where a matmul may not be.
    x, y = points[..., 0, None], points[..., 1, None]
    matrix = matrix[..., None, :, :]
    return matrix[..., 0] * x + matrix[..., 1] * y + matrix[..., 2]


def transform_keypoints(
    keypoints: jax.Array,
    matrix: jax.Array,
    *,
    in_size: tuple[int, int],
    out_size: tuple[int, int],
) -> jax.Array:
    """Take keypoints along with an image that is warped.

    Args:
      keypoints: [..., K, 2], (x, y) in 0..1 of the input image.
      matrix: [..., 2, 3], from input pixels to output pixels.
      in_size: (height, width) of the input image.
      out_size: (height, width) of the output image.
    Returns: float32 [..., K, 2], (x, y) in 0..1 of the output image; may leave it.
    """
    pixels = keypoints * jnp.array(in_size[::-1], jnp.float32)
    return apply(matrix, pixels) / jnp.array(out_size[::-1], jnp.float32)


def _rows(a: jax.Array, b: jax.Array, c: jax.Array, d: jax.Array) -> jax.Array:
    """Stack four arrays [...] to matrices [..., 2, 2]."""
    return jnp.stack([jnp.stack([a, b], -1), jnp.stack([c, d], -1)], -2)


def _about(linear: jax.Array, center: jax.Array) -> jax.Array:
    """Matrix [..., 2, 3] of a linear map [..., 2, 2] that keeps `center` in place."""
    x = jnp.asarray(center, jnp.float32)
    moved = linear[..., 0] * x[..., 0, None] + linear[..., 1] * x[..., 1, None]
    shape = jnp.broadcast_shapes(linear.shape, (*x.shape, 1))
    offset = jnp.broadcast_to(x - moved, shape[:-1])
    return jnp.concatenate(
        [jnp.broadcast_to(linear, shape), offset[..., None]], axis=-1
    )
