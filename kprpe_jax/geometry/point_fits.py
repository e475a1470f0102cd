"""Fit maps between two sets of points by least squares, in closed form."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_COINCIDENT = 1e-12  # least spread, relative to the squared coordinates
_COLLINEAR = 1e-6  # least ratio of the determinant to the squared trace


def fit_similarity(source: jax.Array, target: jax.Array) -> jax.Array:
    """Fit a similarity: rotation, scale and translation, no reflection.

    In the plane Umeyama's solution needs no singular values: a rotation times a scale
    is any matrix [[a, -b], [b, a]], in which the error is quadratic. A reflected target
    gets the best map without a reflection, scale 0 in the extreme.

    Source: Umeyama, Least-squares estimation of transformation parameters between two
    point patterns, 1991, Eqs. 40-42.
    Args:
      source: [..., K, 2], (x, y).
      target: [..., K, 2].
    Returns: float32 [..., 2, 3], from source to target, differentiable in both. Source
      points that all coincide give the translation between the means.
    Raises: ValueError: shapes that differ, no points.
    """
    return _similarity(jnp, *_checked("fit_similarity", source, target))


def similarity_matrix(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """`fit_similarity` on the host: NumPy arrays, float64 [..., 2, 3]."""
    source, target = np.asarray(source, float), np.asarray(target, float)
    _check_points("similarity_matrix", source, target)
    return _similarity(np, source, target)


def fit_affine(source: jax.Array, target: jax.Array) -> jax.Array:
    """Fit an affine map.

    Args:
      source: [..., K, 2], (x, y).
      target: [..., K, 2].
    Returns: float32 [..., 2, 3], from source to target, differentiable in both. Source
      points on a line leave it undetermined: they give `fit_similarity`.
    Raises: ValueError: shapes that differ, no points.
    """
    source, target = _checked("fit_affine", source, target)
    p, q, *means = _centered(source, target)

    def moments(left: jax.Array, right: jax.Array) -> jax.Array:
        # Written out: at full precision on every device, where a matmul may not be.
        return (left[..., :, None] * right[..., None, :]).sum(-3)

    cross, square = moments(q, p), moments(p, p)
    xx, xy, yy = square[..., 0, 0], square[..., 0, 1], square[..., 1, 1]
    determinant = xx * yy - xy * xy
    plane = determinant > _COLLINEAR * jnp.square(xx + yy)
    determinant = jnp.where(plane, determinant, 1)[..., None, None]
    adjugate = jnp.stack([jnp.stack([yy, -xy], -1), jnp.stack([-xy, xx], -1)], -2)
    linear = (cross[..., :, :, None] * adjugate[..., None, :, :]).sum(-2) / determinant
    fit = _with_offset(jnp, linear, *means)
    return jnp.where(plane[..., None, None], fit, fit_similarity(source, target))


def _checked(
    name: str, source: jax.Array, target: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Both sets of points as float32."""
    _check_points(name, source, target)
    return jnp.asarray(source, jnp.float32), jnp.asarray(target, jnp.float32)


def _check_points(name: str, source: Any, target: Any) -> None:
    shape = source.shape[-2:]
    if shape != target.shape[-2:] or len(shape) < 2 or shape[1] != 2 or not shape[0]:
        raise ValueError(
            f"{name}: source and target must both be [..., K, 2]; got {source.shape} "
            f"and {target.shape}; give the same points in the same order"
        )


def _similarity(xp: Any, source: Any, target: Any) -> Any:
    """`fit_similarity` in NumPy or JAX."""
    p, q, *means = _centered(source, target)
    spread = xp.square(p).sum((-2, -1))
    apart = spread > _COINCIDENT * xp.square(source).sum((-2, -1))
    spread = xp.where(apart, spread, 1)
    dot = (p * q).sum((-2, -1))
    cross = (p[..., 0] * q[..., 1] - p[..., 1] * q[..., 0]).sum(-1)
    a, b = xp.where(apart, dot / spread, 1), cross / spread
    linear = xp.stack([xp.stack([a, -b], -1), xp.stack([b, a], -1)], -2)
    return _with_offset(xp, linear, *means)


def _centered(source: Any, target: Any) -> tuple[Any, Any, Any, Any]:
    """Points without their means, and the means [..., 1, 2]."""
    means = source.mean(-2, keepdims=True), target.mean(-2, keepdims=True)
    return source - means[0], target - means[1], *means


def _with_offset(xp: Any, linear: Any, source_mean: Any, target_mean: Any) -> Any:
    """[linear | t] that takes one mean to the other."""
    offset = target_mean[..., 0, :] - (linear * source_mean).sum(-1)
    return xp.concatenate([linear, offset[..., None]], axis=-1)
