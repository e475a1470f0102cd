"""Blur matrices against Pillow's filters and a loop over the taps."""

import math

import jax
import numpy as np
import pytest
from PIL import Image, ImageFilter

from kprpe_jax.augmentation import blur
from tests.augmentation.pictures import picture, to_float, to_levels
from tests.quick import quick_jit

PILLOW = {
    "nearest": Image.Resampling.NEAREST,
    "area": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
SIZE = 24

blurred = quick_jit(lambda image, rows: blur.blur_with(image, rows, rows))
resize = quick_jit(blur.resize_matrix, static_argnums=0)
box = quick_jit(blur.box_matrix, static_argnums=0)
gaussian = quick_jit(blur.gaussian_matrix, static_argnums=0)


def test_box_is_pillows(rng):
    image = picture(rng, (SIZE, SIZE))
    for width in (1, 2, 3, 6, 9):  # of even width, the two ends count half
        got = to_levels(blurred(to_float(image), box(SIZE, float(width))))
        want = np.asarray(image.filter(ImageFilter.BoxBlur((width - 1) / 2)), float)
        assert np.abs(got - want).max() <= 1.01, width  # Pillow rounds after each axis


@pytest.mark.parametrize("sigma", [0.0, 0.5, 2.0, 4.0])
def test_gaussian_is_a_sum_over_taps(rng, sigma):
    values = rng.normal(size=SIZE)
    want = np.zeros(SIZE)
    for i in range(SIZE):
        for tap in range(-60, 61):
            edges = [(tap + end) / max(sigma, 1e-9) for end in (-0.5, 0.5)]
            low, high = (0.5 + 0.5 * math.erf(edge / math.sqrt(2)) for edge in edges)
            want[i] += (high - low) * values[min(max(i + tap, 0), SIZE - 1)]
    np.testing.assert_allclose(gaussian(SIZE, sigma) @ values, want, atol=1e-5)


def test_gaussian_is_close_to_pillows_which_is_three_boxes(rng):
    image = picture(rng, (SIZE, SIZE))
    # With a margin, because each of the boxes starts anew at the border.
    wide = np.pad(image, ((20, 20), (20, 20), (0, 0)), mode="edge")
    for sigma in (1.0, 2.0, 4.0):
        got = to_levels(blurred(to_float(image), gaussian(SIZE, sigma)))
        smooth = Image.fromarray(wide).filter(ImageFilter.GaussianBlur(sigma))
        want = np.asarray(smooth, float)[20:-20, 20:-20]
        assert np.abs(got - want).max() <= 5, sigma
        assert np.abs(got - want).mean() <= 1, sigma


@pytest.mark.parametrize("shrink", PILLOW)
def test_shrinking_and_enlarging_is_pillows(rng, shrink):
    # Middling levels: Pillow clips and rounds the small image, the matrix does not.
    image = picture(rng, (SIZE, SIZE), low=60, high=195)
    names = list(blur.INTERPOLATIONS)
    for small in (5, 12, 17, SIZE):
        little = image.resize((small, small), PILLOW[shrink])
        for enlarge, how in PILLOW.items():
            want = np.asarray(little.resize((SIZE, SIZE), how), float)
            matrix = resize(
                SIZE,
                float(small),
                shrink=names.index(shrink),
                enlarge=names.index(enlarge),
            )
            got = to_levels(blurred(to_float(image), matrix))
            assert np.abs(got - want).max() <= 2.01, (small, enlarge)


def test_rows_of_all_matrices_sum_to_one():
    matrices = [box(SIZE, 8.0), gaussian(SIZE, 0.0), gaussian(SIZE, 30.0)]
    for shrink in range(5):
        for small in (1.0, 7.0):
            matrices.append(resize(SIZE, small, shrink=shrink, enlarge=4 - shrink))
    for matrix in matrices:
        assert np.isfinite(matrix).all()
        np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-5)


def test_kind_chooses_the_blur_and_zero_is_none(rng):
    image = to_float(picture(rng, (SIZE, SIZE + 4)))  # one matrix for each axis
    sampled = blur.BlurSample(0, 9, 3.0, 0.5, 1, 2)
    scale = SIZE / 112
    run = quick_jit(blur.apply)
    np.testing.assert_array_equal(run(image, sampled), image)

    def matrices(make):
        return make(SIZE), make(SIZE + 4)

    for kind, (rows, columns) in {
        1: matrices(lambda n: box(n, 9 * scale)),
        2: matrices(lambda n: gaussian(n, 3 * scale)),
        3: matrices(lambda n: resize(n, float(n // 2), shrink=1, enlarge=2)),
    }.items():
        want = np.einsum("ih,hwc,jw->ijc", rows, image, columns)
        got = run(image, sampled._replace(kind=kind))
        np.testing.assert_allclose(got, want, atol=1e-5)


def test_draws_follow_the_settings():
    settings = blur.Blur(prob=0.6, weights=(1, 2, 1), box_width=5, side=(0.3, 0.7))
    keys = jax.random.split(jax.random.key(0), 4000)
    sampled = quick_jit(jax.vmap(lambda key: blur.sample(key, settings)))(keys)
    share = np.bincount(sampled.kind, minlength=4) / 4000
    np.testing.assert_allclose(share, [0.4, 0.15, 0.3, 0.15], atol=0.03)
    assert set(np.unique(sampled.box_width)) == {1, 2, 3, 4, 5}
    assert 0 <= sampled.sigma.min() <= 0.05 < 3.95 <= sampled.sigma.max() <= 4
    assert 0.3 <= sampled.side.min() <= 0.31 < 0.69 <= sampled.side.max() <= 0.7
    pairs = np.asarray(sampled.shrink) * 5 + np.asarray(sampled.enlarge)
    assert np.bincount(pairs, minlength=25).min() > 100  # of 160 each
