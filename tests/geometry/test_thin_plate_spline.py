"""Splines: interpolation, affine maps, a NumPy oracle, the way back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from kprpe_jax.geometry import thin_plate_spline as tps
from kprpe_jax.geometry.grids import identity_grid

warp_points = jax.jit(tps.warp_points)
warp_grid = jax.jit(tps.warp_grid)
invert_warp = jax.jit(tps.invert_warp)


def slow_spline(control, values, point):
    """Bookstein's system written out for one set of values and one point."""
    count = len(control)
    system = np.zeros((count + 3, count + 3))
    for i, j in np.ndindex(count, count):
        r = np.hypot(*(control[i] - control[j]))
        system[i, j] = r**2 * np.log(r) if r else 0
    system[:count, count:] = np.c_[np.ones(count), control]
    system[count:, :count] = system[:count, count:].T
    weights = np.linalg.solve(system, np.r_[values, np.zeros((3, 2))])
    r = np.hypot(*(point - control).T)
    kernel = np.where(r > 0, r**2 * np.log(np.where(r > 0, r, 1)), 0)
    return np.r_[kernel, 1, point] @ weights


@pytest.fixture
def warp(rng):
    """A spline on 3 x 4 points and displacements of two images."""
    spline = tps.make_spline(tps.control_grid(3, 4))
    return spline, jnp.asarray(rng.normal(size=(2, 12, 2)) * 0.1, jnp.float32)


@pytest.mark.parametrize("side", [2, 3, 8, 10])
def test_control_points_are_met_and_no_displacement_is_the_identity(rng, side):
    spline = tps.make_spline(tps.control_grid(side, side))
    displacements = jnp.asarray(rng.normal(size=(2, side**2, 2)) * 0.1, jnp.float32)
    control = jnp.asarray(spline.control, jnp.float32)
    got = warp_points(spline, displacements, control)
    np.testing.assert_allclose(got, control + displacements, atol=5e-5)

    basis = tps.grid_basis(spline, (6, 5))
    still = warp_grid(basis, jnp.zeros_like(displacements))
    np.testing.assert_array_equal(still, np.stack([identity_grid((6, 5))] * 2))


@pytest.mark.parametrize("align", [False, True])
def test_grid_and_points_equal_the_written_out_system(warp, align):
    spline, displacements = warp
    basis = tps.grid_basis(spline, (5, 6), align_corners=align)
    assert basis.align_corners == align
    grid = warp_grid(basis, displacements)
    places = identity_grid((5, 6), align_corners=align)
    points = warp_points(spline, displacements, jnp.asarray(places).reshape(-1, 2))
    np.testing.assert_allclose(grid.reshape(2, -1, 2), points, atol=1e-5)
    targets = spline.control + np.asarray(displacements)
    for b, row, col in np.ndindex(2, 5, 6):
        want = slow_spline(spline.control, targets[b], places[row, col])
        np.testing.assert_allclose(grid[b, row, col], want, atol=1e-5)


def test_affine_displacements_give_the_affine_map(rng):
    spline = tps.make_spline(rng.uniform(-1, 1, size=(7, 2)))
    matrix, offset = rng.normal(size=(2, 2)), rng.normal(size=2)
    moved = spline.control @ matrix.T + offset - spline.control
    points = rng.uniform(-2, 2, size=(9, 2))
    got = warp_points(
        spline, jnp.asarray(moved, jnp.float32), jnp.asarray(points, jnp.float32)
    )
    np.testing.assert_allclose(got, points @ matrix.T + offset, atol=1e-4)


def test_gradients_equal_finite_differences_and_are_finite_at_control_points(warp):
    spline, displacements = warp
    points = jnp.linspace(-0.9, 0.9, 10).reshape(5, 2) * jnp.array([1.0, -0.7])

    def run(displacements, points):
        return warp_points(spline, displacements, points)

    check_grads(run, (displacements, points), 1, ["rev"], 1e-2, 1e-2, eps=1e-2)
    control = jnp.asarray(spline.control, jnp.float32)
    gradients = jax.jit(jax.grad(lambda *args: run(*args).sum(), (0, 1)))
    for gradient in gradients(displacements, control):
        assert np.isfinite(gradient).all()


@pytest.mark.slow
def test_the_way_back_and_its_gradients(warp, rng):
    spline, displacements = warp
    places = jnp.asarray(rng.uniform(-1, 1, size=(2, 20, 2)), jnp.float32)

    def back(displacements, points):
        return invert_warp(spline, displacements, points)

    points = warp_points(spline, displacements, places)
    np.testing.assert_allclose(back(displacements, points), places, atol=1e-5)
    few = displacements, points[:, :3]
    check_grads(back, few, 1, ["rev"], 1e-2, 1e-2, eps=1e-3)


def test_the_way_back_through_folded_and_flat_warps_is_finite(warp, rng):
    spline, _ = warp
    points = jnp.asarray(rng.uniform(-1, 1, size=(20, 2)), jnp.float32)
    for displacements in (
        jnp.asarray(rng.normal(size=(12, 2)) * 3, jnp.float32),
        jnp.asarray(-spline.control, jnp.float32),  # everything at one point
    ):
        got, pullback = jax.vjp(lambda d: invert_warp(spline, d, points), displacements)
        assert np.isfinite(got).all()
        assert np.isfinite(pullback(jnp.ones_like(got))[0]).all()


@pytest.mark.parametrize(
    "control",
    [
        np.stack([np.arange(4.0)] * 2, axis=1),  # on a line
        np.array([[0, 0], [1, 0], [0, 1], [0, 1.0]]),  # repeated
        np.array([[0, 0], [1, 0], [0, np.nan]]),
    ],
)
def test_control_points_that_determine_nothing_are_refused(control):
    with pytest.raises(ValueError, match="must be finite, distinct and not all on one"):
        tps.make_spline(control)


def test_other_mistakes_are_named():
    with pytest.raises(ValueError, match=r"M at least 3; got \(2, 2\)"):
        tps.make_spline(np.eye(2))
    with pytest.raises(ValueError, match="known outside the compiled function"):
        jax.jit(tps.make_spline)(jnp.asarray(tps.control_grid(2, 2)))
    with pytest.raises(ValueError, match="at least 2 rows .* got 1 x 4"):
        tps.control_grid(1, 4)
    basis = tps.grid_basis(tps.make_spline(tps.control_grid(2, 2)), (3, 3))
    spline, nine = tps.make_spline(tps.control_grid(2, 2)), jnp.zeros((2, 9, 2))
    with pytest.raises(ValueError, match=r"warp_grid: .* be \[\.\.\., 4, 2\], one for"):
        warp_grid(basis, nine)
    with pytest.raises(ValueError, match=r"warp_points: .* 4, 2\], .* \(2, 9, 2\)"):
        warp_points(spline, nine, jnp.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"invert_warp: .* 4, 2\], .* \(2, 9, 2\)"):
        invert_warp(spline, nine, jnp.zeros((3, 2)))
