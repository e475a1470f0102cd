"""Thin-plate splines: the smoothest maps of the plane that move control points exactly.

A warp leaves a point p alone plus a sum of what the control points' displacements do to
it: p + basis(p) d. The kernel system behind the basis depends on the control points
only; it is solved once, in NumPy, and for a fixed grid of pixels the basis is a
constant, so that a warp grid in the step costs one matrix product. Zero displacements
are the identity exactly, and an affine displacement gives that affine map.

Source: Bookstein, Principal warps, 1989; Balanced Alignment, Sec. 4.1.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from kprpe_jax.geometry.grids import identity_grid

_ILL = 1e10  # condition number above which a kernel system counts as singular
_LONGEST_STEP = 0.5  # of the inverse's iteration, in units of the points


class Spline(NamedTuple):
    """Control points and the solution of their kernel system.

    Attributes:
      control: float64 [M, 2], (x, y).
      operator: float64 [M + 3, M], from values at the control points to the weights of
        the M kernels and of 1, x, y.
    """

    control: np.ndarray
    operator: np.ndarray


@struct.dataclass
class GridBasis:
    """What the control points do to every pixel of a grid.

    Attributes:
      values: float32 [H, W, M].
      align_corners: the convention of the grid, for `grid_sample`; static under jit.
    """

    values: np.ndarray
    align_corners: bool = struct.field(pytree_node=False)


def control_grid(rows: int, columns: int) -> np.ndarray:
    """Control points on a regular grid that reaches to the edges.

    Args:
      rows, columns: at least 2; the paper uses 2 x 2 and 8 x 8.
    Returns: float32 [rows * columns, 2], (x, y) in [-1, 1], row by row.
    Raises: ValueError: fewer than 2.
    """
    if min(rows, columns) < 2:
        raise ValueError(
            "control_grid: a grid must have at least 2 rows and 2 columns; got "
            f"{rows} x {columns}; use a larger one"
        )
    return identity_grid((rows, columns), align_corners=True).reshape(-1, 2)


def make_spline(control: np.ndarray) -> Spline:
    """Solve the kernel system of control points, in float64.

    Args:
      control: [M, 2], at least 3 distinct points that are not all on one line; known
        when the program is built.
    Raises: ValueError: control points that determine no spline, or traced ones.
    """
    if isinstance(control, jax.core.Tracer):
        raise ValueError(
            "make_spline: control points must be known outside the compiled function; "
            "got traced ones; build the spline first and let displacements vary"
        )
    points = np.asarray(control, np.float64)
    count = len(points)
    if points.ndim != 2 or points.shape[1] != 2 or count < 3:
        raise ValueError(
            "make_spline: control points must be [M, 2] with M at least 3; got "
            f"{points.shape}; add points"
        )
    affine_part = np.concatenate([np.ones((count, 1)), points], axis=1)
    system = np.zeros((count + 3, count + 3))
    system[:count, :count] = _kernel_numpy(points, points)
    system[:count, count:] = affine_part
    system[count:, :count] = affine_part.T
    if not np.isfinite(system).all() or np.linalg.cond(system) > _ILL:
        raise ValueError(
            f"make_spline: the {count} control points must be finite, distinct and not "
            "all on one line; got some that are not; move or remove them"
        )
    operator = np.linalg.inv(system)[:, :count]
    return Spline(points, operator)


def grid_basis(
    spline: Spline, size: tuple[int, int], *, align_corners: bool = False
) -> GridBasis:
    """What the control points do to every pixel; make it once, outside the step.

    Args:
      spline: with control points in [-1, 1] of the output.
      size: (height, width) of the output.
      align_corners: the convention of the grid.
    """
    grid = identity_grid(size, align_corners=align_corners).astype(np.float64)
    points = grid.reshape(-1, 2)
    kernel = _kernel_numpy(points, spline.control)
    features = np.concatenate([kernel, np.ones((len(points), 1)), points], axis=1)
    values = (features @ spline.operator).astype(np.float32).reshape(*size, -1)
    return GridBasis(values, align_corners)


def warp_grid(basis: GridBasis, displacements: jax.Array) -> jax.Array:
    """Warp grid: one matrix product.

    Args:
      basis: from `grid_basis`.
      displacements: [..., M, 2], where in the input the control points of the output
        lie, minus the control points.
    Returns: float32 [..., H, W, 2], for `grid_sample` with `basis.align_corners`.
    Raises: ValueError: displacements of another number of points.
    """
    *size, count = basis.values.shape
    _check_displacements("warp_grid", count, displacements)
    moved = jnp.einsum(
        "hwm,...mc->...hwc",
        jnp.asarray(basis.values),
        displacements.astype(jnp.float32),
        precision=jax.lax.Precision.HIGHEST,
    )
    return identity_grid(tuple(size), align_corners=basis.align_corners) + moved


def warp_points(
    spline: Spline, displacements: jax.Array, points: jax.Array
) -> jax.Array:
    """The warp at any points: where in the input points of the output lie.

    Args:
      spline: with M control points.
      displacements: [..., M, 2], of the control points.
      points: [..., K, 2].
    Returns: float32 [..., K, 2], differentiable in both, at control points, too.
    Raises: ValueError: displacements of another number of points.
    """
    _check_displacements("warp_points", len(spline.control), displacements)
    operator = jnp.asarray(spline.operator, jnp.float32)
    control = jnp.asarray(spline.control, jnp.float32)
    points = points.astype(jnp.float32)
    highest = jax.lax.Precision.HIGHEST
    weights = jnp.einsum("nm,...mc->...nc", operator, displacements, precision=highest)
    squares = jnp.square(points[..., :, None, :] - control).sum(-1)  # [..., K, M]
    # Twice guarded: the logarithm's slope at 0 must not meet the zero weight.
    apart = squares > 0
    kernel = jnp.where(
        apart, 0.5 * squares * jnp.log(jnp.where(apart, squares, 1.0)), 0.0
    )
    one = jnp.ones_like(points[..., :1])
    features = jnp.concatenate([kernel, one, points], axis=-1)
    return points + jnp.matmul(features, weights, precision=highest)


def invert_warp(
    spline: Spline,
    displacements: jax.Array,
    points: jax.Array,
    *,
    iterations: int = 10,
) -> jax.Array:
    """Where in the output points of the input come to lie: `warp_points` backwards.

    Newton's method, a fixed number of steps of at most half the image each. Gradients
    are those of the solution itself and do not run through the iteration.

    Args:
      spline: with M control points.
      displacements: [..., M, 2], of the control points.
      points: [..., K, 2].
      iterations: 10 reach float32 precision for warps that do not fold.
    Returns: float32 [..., K, 2], always finite for input of up to 1e6; where the warp
      folds, one of the points that lie there, or where the search ended.
    Raises: ValueError: displacements of another number of points.
    """
    _check_displacements("invert_warp", len(spline.control), displacements)

    def newton(place: jax.Array, fixed: jax.Array, target: jax.Array) -> jax.Array:
        def warp(x: jax.Array) -> jax.Array:
            return warp_points(spline, jax.lax.stop_gradient(fixed), x)

        slope_x, slope_y = (
            jax.jvp(warp, (place,), (jnp.broadcast_to(axis, place.shape),))[1]
            for axis in jnp.eye(2)
        )
        slope_x, slope_y = jax.lax.stop_gradient((slope_x, slope_y))
        error = target - warp_points(spline, fixed, place)
        determinant = (
            slope_x[..., 0] * slope_y[..., 1] - slope_x[..., 1] * slope_y[..., 0]
        )
        flat = jnp.abs(determinant) < 1e-6
        determinant = jnp.where(flat, 1.0, determinant)
        step = jnp.stack(
            [
                error[..., 0] * slope_y[..., 1] - error[..., 1] * slope_y[..., 0],
                slope_x[..., 0] * error[..., 1] - slope_x[..., 1] * error[..., 0],
            ],
            axis=-1,
        )
        step = jnp.where(flat[..., None], error, step / determinant[..., None])
        longest = jnp.abs(jax.lax.stop_gradient(step)).max(-1, keepdims=True)
        return place + step * jnp.minimum(
            1.0, _LONGEST_STEP / jnp.maximum(longest, 1e-6)
        )

    frozen = jax.lax.stop_gradient((displacements, points))
    place = jax.lax.fori_loop(
        0, iterations, lambda _, place: newton(place, *frozen), frozen[1]
    )
    return newton(jax.lax.stop_gradient(place), displacements, points)


def _check_displacements(name: str, count: int, displacements: jax.Array) -> None:
    if displacements.shape[-2:] != (count, 2):
        raise ValueError(
            f"{name}: displacements must be [..., {count}, 2], one for each control "
            f"point; got {displacements.shape}; use the control points of this spline"
        )


def _kernel_numpy(points: np.ndarray, control: np.ndarray) -> np.ndarray:
    """r^2 log r between all points, [N, M]."""
    squares = np.square(points[:, None] - control).sum(-1)
    return 0.5 * squares * np.log(np.where(squares > 0, squares, 1.0))
