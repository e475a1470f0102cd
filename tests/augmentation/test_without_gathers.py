"""What a TPU runs in place of gathers and scatters gives what they give."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.augmentation import color, rare
from kprpe_jax.augmentation.recipe import PRESETS, augment
from kprpe_jax.augmentation.spatial import Spatial
from kprpe_jax.geometry import affine
from kprpe_jax.geometry.sampling import warp_affine, warp_affine_in_passes
from tests.augmentation.pictures import picture, to_float
from tests.quick import quick_jit

SIZE = (32, 40)
warp = quick_jit(warp_affine, static_argnames="out_size")
in_passes = quick_jit(warp_affine_in_passes, static_argnames="outside")


@pytest.mark.parametrize(("low", "high"), [(0, 256), (90, 130), (77, 78)])
def test_equalizing_by_sums_is_that_by_tables(rng, low, high):
    # 60 x 60: steps of several pixels; 8 x 8: no step, the image stays.
    for size in ((60, 60), (8, 8)):
        image = jnp.asarray(to_float(picture(rng, size, low=low, high=high)))
        levels = jnp.round((image + 1) * 127.5).astype(jnp.int32)
        want = quick_jit(color.equalize_by_tables)(image, levels)
        got = quick_jit(color.equalize_by_sums)(image, levels)
        np.testing.assert_allclose(got, want, atol=3e-7)  # a level is 8e-3


def compose(*, degrees: float, scale: tuple, shift: tuple) -> jax.Array:
    center = jnp.array([SIZE[1] / 2, SIZE[0] / 2])
    return affine.compose(
        affine.rotation(degrees, center),
        affine.scaling(jnp.array(scale), center),
        affine.translation(jnp.array(shift)),
    )


def test_two_passes_are_the_bilinear_warp_where_nothing_turns(rng):
    image = to_float(picture(rng, SIZE))[None]
    # Larger, smaller, mirrored, and out of the picture altogether.
    for scale, shift in (
        ((1.2, 0.9), (3.3, -2.7)),
        ((-0.8, 1.1), (0.5, 4.0)),
        ((1.0, 1.0), (70.0, 0.0)),
    ):
        inverse = affine.invert(compose(degrees=0.0, scale=scale, shift=shift))[None]
        want = warp(image, inverse, out_size=SIZE, outside=-1.0)
        got = in_passes(image, inverse, outside=-1.0)
        np.testing.assert_allclose(got, want, atol=1e-5)


def slow_passes(image: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """Interpolate each row, then each column of that, with black pixels around."""
    (a, b, c), (d, e, f) = inverse
    height, width = image.shape
    columns, rows = np.arange(-1, width + 1) + 0.5, np.arange(-1, height + 1) + 0.5
    first, second = np.zeros_like(image), np.zeros_like(image)
    u, v = np.arange(width) + 0.5, np.arange(height) + 0.5
    for i in range(height):
        # The new row in which the old row i + 0.5 is met, at every new column.
        met = (i + 0.5 - d * u - f) / e
        first[i] = np.interp(a * u + b * met + c, columns, np.pad(image[i], 1))
    for j in range(width):
        second[:, j] = np.interp(d * u[j] + e * v + f, rows, np.pad(first[:, j], 1))
    return second


@pytest.mark.parametrize("degrees", [-20.0, 8.0])
def test_two_passes_against_interpolation_of_rows_and_columns(rng, degrees):
    image = to_float(picture(rng, SIZE)) + 1
    inverse = affine.invert(compose(degrees=degrees, scale=(1.2, 0.9), shift=(3.0, 1)))
    want = np.stack(
        [slow_passes(image[..., i], np.asarray(inverse)) for i in range(3)], axis=-1
    )
    got = in_passes(image[None] - 1, inverse[None], outside=-1.0)[0] + 1
    np.testing.assert_allclose(got, want, atol=1e-4)


def test_two_passes_turn_a_smooth_picture_as_the_bilinear_warp_does():
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    image = np.stack([np.sin(x / 5), np.cos(y / 4), np.sin((x + y) / 6)], -1)[None]
    inverse = affine.invert(compose(degrees=20.0, scale=(1.0, 1.0), shift=(0, 0)))[None]
    want = np.asarray(warp(image, inverse, out_size=SIZE))
    difference = np.abs(np.asarray(in_passes(image, inverse)) - want)[0, 6:-6, 6:-6]
    assert difference.mean() < 0.002
    assert np.abs(want).mean() > 0.3


def test_only_small_turns_go_in_passes():
    assert Spatial(rotation_prob=0.2, shear_prob=0.2).stays_upright
    assert not Spatial(rotation_prob=0.1, rotation_degrees=90.0).stays_upright
    assert Spatial(rotation_degrees=90.0, scale_prob=1.0).stays_upright  # none turns


@pytest.mark.parametrize("drawn", [[], [2], [0, 3, 4], [0, 1, 2, 3, 4]])
def test_images_in_turns_are_images_side_by_side(rng, drawn):
    images = rng.uniform(-1, 1, (5, 4, 4, 3)).astype(np.float32)
    applies = np.isin(np.arange(5), drawn)
    want = np.where(applies[:, None, None, None], color.invert(images), images)
    for run in (rare.in_turns, rare.side_by_side):
        got = quick_jit(run, static_argnums=2)(applies, images, color.invert)
        np.testing.assert_array_equal(got, want)
    batched = jax.vmap(lambda a, x: rare.apply_where(a, color.invert, x))
    np.testing.assert_array_equal(batched(applies, images), want)


def test_a_tpus_program_of_the_recipe_moves_no_pixels_by_gather_or_scatter():
    images = jax.ShapeDtypeStruct((4, 112, 112, 3), np.uint8)
    points = jax.ShapeDtypeStruct((4, 5, 2), np.float32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    traced = jax.jit(augment, static_argnames="recipe").trace(
        key, images, points, recipe=PRESETS["kprpe"]
    )
    program = traced.lower(lowering_platforms=("tpu",)).as_text()
    found = re.findall(
        r"stablehlo\.(?:gather|scatter)\"?\(.*?-> *tensor<([\dx]*)x\w+>",
        program,
        flags=re.DOTALL,
    )
    pixels = [np.prod([int(side) for side in shape.split("x")]) for shape in found]
    assert max(pixels, default=0) < 1000, sorted(pixels)[-5:]
    # The table look-ups are there for other platforms.
    other = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert other.count("gather") > program.count("gather")
