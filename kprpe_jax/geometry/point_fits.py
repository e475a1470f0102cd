"""Least-squares maps between two sets of points, in closed form."""

import jax
import jax.numpy as jnp

_COINCIDENT = 1e-12  # least spread, relative to the squared coordinates
_COLLINEAR = 1e-6  # least ratio of the determinant to the squared trace


def fit_similarity(source: jax.Array, target: jax.Array) -> jax.Array:
    """Rotation, scale and translation, no reflection, that bring points together.

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
    Raises: ValueError: shapes that differ.
    """
    (p, q), means = _centered("fit_similarity", source, target)
    spread = jnp.square(p).sum((-2, -1))
    apart = spread > _COINCIDENT * jnp.square(source).sum((-2, -1))
    spread = jnp.where(apart, spread, 1)
    dot = (p * q).sum((-2, -1))
    cross = (p[..., 0] * q[..., 1] - p[..., 1] * q[..., 0]).sum(-1)
    a, b = jnp.where(apart, dot / spread, 1), cross / spread
    linear = jnp.stack([jnp.stack([a, -b], -1), jnp.stack([b, a], -1)], -2)
    return _with_offset(linear, *means)


def fit_affine(source: jax.Array, target: jax.Array) -> jax.Array:
    """Affine map that brings points together.

    Args:
      source: [..., K, 2], (x, y).
      target: [..., K, 2].
    Returns: float32 [..., 2, 3], from source to target, differentiable in both. Source
      points on a line leave it undetermined: they give `fit_similarity`.
    Raises: ValueError: shapes that differ.
    """
    (p, q), means = _centered("fit_affine", source, target)

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
    fit = _with_offset(linear, *means)
    return jnp.where(plane[..., None, None], fit, fit_similarity(source, target))


def _centered(
    name: str, source: jax.Array, target: jax.Array
) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    """Points without their means [..., 1, 2], and the means."""
    if source.shape[-2:] != target.shape[-2:] or source.shape[-1] != 2:
        raise ValueError(
            f"{name}: source and target must both be [..., K, 2]; got {source.shape} "
            f"and {target.shape}; give the same points in the same order"
        )
    points = [jnp.asarray(p, jnp.float32) for p in (source, target)]
    means = tuple(p.mean(-2, keepdims=True) for p in points)
    return tuple(p - mean for p, mean in zip(points, means, strict=True)), means


def _with_offset(
    linear: jax.Array, source_mean: jax.Array, target_mean: jax.Array
) -> jax.Array:
    """[linear | t] that takes one mean to the other."""
    offset = target_mean[..., 0, :] - (linear * source_mean).sum(-1)
    return jnp.concatenate([linear, offset[..., None]], axis=-1)
