"""Grids, fits, splines and sampling against PyTorch's, NumPy's and scikit-image's."""

import re

import jax
import jax.numpy as jnp
import pytest

from kprpe_jax.geometry import grids, point_fits, sampling
from kprpe_jax.geometry import thin_plate_spline as tps
from tests.golden.golden import assert_close, case_params, load_case

pytestmark = pytest.mark.golden


@pytest.mark.parametrize("case", case_params("grid_sample"))
def test_grid_sample_and_its_gradients(case):
    arrays = load_case(case).arrays
    image, cotangent = (
        jnp.asarray(arrays["in"][name].transpose(0, 2, 3, 1))
        for name in ("image", "cotangent")
    )
    grid = jnp.asarray(arrays["in"]["grid"])
    assert arrays["out"]
    for key, want in arrays["out"].items():
        padding, align = re.fullmatch(r"(\w+)_align([01])", key).groups()

        def run(image, grid, padding=padding, align=align == "1"):
            return sampling.grid_sample(
                image, grid, padding=padding, align_corners=align
            )

        got, pullback = jax.vjp(jax.jit(run), image, grid)
        assert_close(got.transpose(0, 3, 1, 2), want, 1e-5, key)
        by_image, by_grid = pullback(cotangent)
        stored = arrays["grad"]
        assert_close(
            by_image.transpose(0, 3, 1, 2), stored[f"in::image_{key}"], 1e-5, key
        )
        assert_close(by_grid, stored[f"in::grid_{key}"], 1e-5, f"{key} grid")


@pytest.mark.parametrize("case", case_params("affine_grid"))
def test_affine_grid(case):
    case = load_case(case)
    theta = jnp.asarray(case.arrays["in"]["theta"])
    size = case.options
    for key, want in case.arrays["out"].items():
        got = grids.affine_grid(
            theta,
            (size["height"], size["width"]),
            align_corners=key.removeprefix("align") == "1",
        )
        assert_close(got, want, 1e-6, key)


@pytest.mark.parametrize("case", case_params("point_fits"))
def test_point_fits(case):
    arrays = load_case(case).arrays
    source, target = (jnp.asarray(arrays["in"][name]) for name in ("src", "dst"))
    fits = {
        "similarity": point_fits.fit_similarity,
        "affine_least_squares": point_fits.fit_affine,
    }
    assert set(fits) == set(arrays["out"])
    for key, want in arrays["out"].items():
        got = fits[key](source, target)
        for part in (slice(0, 2), slice(2, 3)):  # offsets are far larger
            assert_close(got[..., part], want[..., part], 1e-5, key)


@pytest.mark.parametrize("case", case_params("thin_plate_spline"))
def test_thin_plate_spline(case):
    arrays = load_case(case).arrays
    control, target, query = (
        arrays["in"][f"{name}"] for name in ("control_points", "target_points", "query")
    )
    spline = tps.make_spline(control)
    displacements = jnp.asarray(target - control)
    for points, key in ((query, "mapped"), (control, "mapped_control")):
        got = jax.jit(tps.warp_points)(spline, displacements, jnp.asarray(points))
        assert_close(got, arrays["out"][key], 1e-5, key)
