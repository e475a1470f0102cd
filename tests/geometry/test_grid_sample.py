"""Paddings and conventions of `grid_sample` against a loop over pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from kprpe_jax.geometry import grids, sampling

grid_sample = jax.jit(
    sampling.grid_sample, static_argnames=("padding", "align_corners")
)
resize = jax.jit(
    sampling.resize_bilinear, static_argnums=1, static_argnames="align_corners"
)


def place(value, size, padding, align):
    """Pixel-center coordinate that a normalized one stands for, by the definition."""
    x = (value + 1) / 2 * (size - 1) if align else ((value + 1) * size - 1) / 2
    if padding == "reflection":
        low, high = (0, size - 1) if align else (-0.5, size - 0.5)
        while high > low and not low <= x <= high:
            x = 2 * low - x if x < low else 2 * high - x
    return x if padding == "zeros" else min(max(x, 0), size - 1)


def slow_grid_sample(image, grid, padding, align):
    height, width, channels = image.shape[1:]
    out = np.zeros((*grid.shape[:-1], channels))
    for at in np.ndindex(grid.shape[:-1]):
        x = place(grid[at][0], width, padding, align)
        y = place(grid[at][1], height, padding, align)
        for col, row in np.ndindex(width, height):
            weight = max(0, 1 - abs(x - col)) * max(0, 1 - abs(y - row))
            out[at] += weight * image[at[0], row, col]
    return out


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("padding", sampling.PADDINGS)
@pytest.mark.parametrize("shape", [(2, 4, 6, 3), (1, 1, 1, 2)])
def test_equals_the_loop_inside_and_far_outside(rng, shape, padding, align):
    image = rng.normal(size=shape)
    grid = rng.uniform(-4, 4, size=(shape[0], 5, 4, 2))
    grid[:, 0, 0], grid[:, 0, 1], grid[:, 0, 2] = -1, 1, 0
    got = grid_sample(
        jnp.asarray(image), jnp.asarray(grid), padding=padding, align_corners=align
    )
    assert got.dtype == jnp.float32
    want = slow_grid_sample(image, grid, padding, align)
    np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("padding", sampling.PADDINGS)
def test_gradients_equal_finite_differences(rng, padding, align):
    image = jnp.asarray(rng.normal(size=(1, 5, 6, 2)), jnp.float32)
    size = np.array([6, 5]) - (1 if align else 0)
    # A quarter of a pixel to either side of a pixel center: no kink is near.
    pixels = rng.integers(-4, 9, size=(1, 3, 4, 2)) + rng.choice([0.25, 0.75])
    grid = jnp.asarray((pixels - (np.array([6, 5]) - 1) / 2) * 2 / size, jnp.float32)

    def run(image, grid):
        return grid_sample(image, grid, padding=padding, align_corners=align)

    check_grads(run, (image, grid), 1, ["rev"], 1e-2, 1e-2, eps=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("padding", sampling.PADDINGS)
def test_identity_warp_is_the_image_with_finite_gradients(rng, padding, align):
    image = jnp.asarray(rng.normal(size=(2, 7, 5, 3)), jnp.float32)
    grid = jnp.asarray(grids.identity_grid((7, 5), align_corners=align))
    grid = jnp.broadcast_to(grid, (2, 7, 5, 2))

    def run(image, grid):
        return grid_sample(image, grid, padding=padding, align_corners=align)

    got, pullback = jax.vjp(run, image, grid)
    np.testing.assert_allclose(got, image, atol=2e-6)
    by_image, by_grid = pullback(jnp.ones_like(got))
    np.testing.assert_allclose(by_image, 1, atol=1e-5)
    assert np.isfinite(by_grid).all()


@pytest.mark.parametrize("padding", sampling.PADDINGS)
def test_a_nan_point_spoils_its_own_place_only(rng, padding):
    image = jnp.asarray(rng.normal(size=(1, 4, 4, 2)), jnp.float32)
    grid = jnp.zeros((1, 2, 2, 2)).at[0, 0, 1, 0].set(jnp.nan)
    got = grid_sample(image, grid, padding=padding)
    assert np.isnan(got[0, 0, 1]).all()
    assert np.isfinite(np.delete(np.asarray(got).reshape(4, 2), 1, axis=0)).all()


def test_infinite_points_are_outside():
    grid = jnp.array([[[[jnp.inf, 0.0], [-jnp.inf, jnp.inf]]]])
    image = jnp.ones((1, 4, 4, 1))
    assert float(jnp.abs(grid_sample(image, grid)).max()) == 0
    got = grid_sample(image, grid, padding="border")
    np.testing.assert_array_equal(got, jnp.ones((1, 1, 2, 1)))


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize(
    "sizes", [((5, 7), (8, 3)), ((1, 4), (3, 3)), ((6, 2), (1, 1))]
)
def test_resize_is_the_identity_grid_with_border(rng, sizes, align):
    old, new = sizes
    image = jnp.asarray(rng.normal(size=(2, *old, 3)), jnp.float32)
    y, x = np.meshgrid(
        *(np.linspace(-1, 1, n) if n > 1 and align else
          -np.ones(n) if align else (np.arange(n) + 0.5) * 2 / n - 1 for n in new),
        indexing="ij",
    )  # fmt: skip
    grid = jnp.asarray(np.stack([x, y], -1)[None].repeat(2, 0), jnp.float32)
    want = grid_sample(image, grid, padding="border", align_corners=align)
    got = resize(image, new, align_corners=align)
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_wrong_arguments_are_named():
    image, grid = jnp.zeros((1, 4, 4, 1)), jnp.zeros((1, 2, 2, 2))
    with pytest.raises(
        ValueError, match="grid_sample: padding must be one of .*'wrap'"
    ):
        grid_sample(image, grid, padding="wrap")
    with pytest.raises(ValueError, match=r"images must be \[B, H, W, C\]; got \(4, 4"):
        grid_sample(image[0], grid)
    with pytest.raises(
        ValueError, match="sample_bilinear: padding must be one of zero"
    ):
        sampling.sample_bilinear(image, grid, padding="reflection")
