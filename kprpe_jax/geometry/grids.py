"""Warp grids: for every output pixel the place in the input that it shows.

A grid is float32 [..., H, W, 2], (x, y) in [-1, 1] of the input, for `grid_sample`. -1
and 1 are the edges of the image, or with `align_corners` the centers of its outermost
pixels. Thin-plate splines have a file of their own.
"""

import jax
import jax.numpy as jnp
import numpy as np

from kprpe_jax.geometry import affine
from kprpe_jax.geometry.sampling import grid_sample

IDENTITY_PROJECTIVE = np.array([1, 0, 0, 0, 1, 0, 0, 0], np.float32)
_HORIZON = 1e-6  # least depth of a projective map


def identity_grid(size: tuple[int, int], *, align_corners: bool = False) -> np.ndarray:
    """Places of the pixel centers themselves.

    Args:
      size: (height, width); an axis of one pixel has its center at 0.
      align_corners: the convention.
    Returns: float32 [height, width, 2].
    """
    axes = []
    for count in size:
        if align_corners:
            axes.append(np.linspace(-1, 1, count) if count > 1 else np.zeros(1))
        else:
            axes.append((np.arange(count) + 0.5) * (2 / count) - 1)
    y, x = np.meshgrid(*axes, indexing="ij")
    return np.stack([x, y], axis=-1).astype(np.float32)


def affine_grid(
    theta: jax.Array, size: tuple[int, int], *, align_corners: bool = False
) -> jax.Array:
    """Grid of affine maps; the definition of PyTorch's.

    Args:
      theta: [..., 2, 3], from normalized output (x, y, 1) to normalized input (x, y);
        the identity is [[1, 0, 0], [0, 1, 0]].
      size: (height, width) of the output.
      align_corners: the convention of both images.
    Returns: float32 [..., height, width, 2].
    """
    grid = identity_grid(size, align_corners=align_corners)
    return affine.apply(theta[..., None, :, :], grid)


def projective_grid(
    parameters: jax.Array, size: tuple[int, int], *, align_corners: bool = False
) -> jax.Array:
    """Grid of projective maps.

    Args:
      parameters: [..., 8], as `apply_projective` takes them, from normalized output to
        normalized input.
      size: (height, width) of the output.
      align_corners: the convention of both images.
    Returns: float32 [..., height, width, 2].
    """
    grid = identity_grid(size, align_corners=align_corners)
    return apply_projective(parameters[..., None, :], grid)


def apply_projective(parameters: jax.Array, points: jax.Array) -> jax.Array:
    """Move points by projective maps.

    Args:
      parameters: [..., 8], the rows (a, b, c), (d, e, f), (g, h, 1) of a 3 x 3 matrix
        without its last entry; the identity is IDENTITY_PROJECTIVE.
      points: [..., K, 2].
    Returns: float32 [..., K, 2]. Points on or behind the horizon (g x + h y + 1 at most
      1e-6), which have no image, get a finite one far away.
    """
    a, b, c, d, e, f, g, h = (parameters[..., None, i] for i in range(8))
    x, y = points[..., 0], points[..., 1]
    depth = g * x + h * y + 1
    depth = jnp.where(depth < _HORIZON, _HORIZON, depth)
    return jnp.stack([a * x + b * y + c, d * x + e * y + f], axis=-1) / depth[..., None]


def invert_projective(parameters: jax.Array) -> jax.Array:
    """Parameters of the inverse map; infinite or NaN where there is none of this form.

    Args:
      parameters: [..., 8], as `apply_projective` takes them.
    Returns: float32 [..., 8].
    """
    a, b, c, d, e, f, g, h = jnp.moveaxis(parameters, -1, 0)
    cofactors = [
        e - f * h, c * h - b, b * f - c * e,
        f * g - d, a - c * g, c * d - a * f,
        d * h - e * g, b * g - a * h,
    ]  # fmt: skip
    return jnp.stack(cofactors, axis=-1) / (a * e - b * d)[..., None]


def compose_grids(
    outer: jax.Array, inner: jax.Array, *, align_corners: bool = False
) -> jax.Array:
    """Grid that does in one sampling what two do one after the other.

    `grid_sample(images, compose_grids(outer, inner))` shows what
    `grid_sample(grid_sample(images, inner), outer)` shows, with the blur of one
    sampling. Between the pixels of `inner`, and beyond them, its displacement is
    interpolated: exact for affine maps inside and for translations everywhere.

    Args:
      outer: [B, H, W, 2], from the output to the image between.
      inner: [B, h, w, 2], from the image between to the input.
      align_corners: the convention of all images.
    Returns: float32 [B, H, W, 2].
    """
    rest = identity_grid(inner.shape[1:3], align_corners=align_corners)
    displacement = grid_sample(
        inner - rest, outer, padding="border", align_corners=align_corners
    )
    return outer + displacement
