"""Color operations against Pillow's, which round to whole levels at every step."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from kprpe_jax.augmentation import color
from tests.augmentation.pictures import picture, to_float, to_levels
from tests.quick import quick_jit

FACTORS = (0.0, 0.3, 1.0, 1.9)
ENHANCE = {
    # Largest difference in levels. Pillow cuts the fraction off (1 level); the gray
    # that it blends with is rounded before it is multiplied by 1 - factor (1 more).
    "brightness": (color.brightness, ImageEnhance.Brightness, 1.01),
    "contrast": (color.contrast, ImageEnhance.Contrast, 2.01),
    "saturation": (color.saturation, ImageEnhance.Color, 2.01),
    "sharpness": (color.sharpness, ImageEnhance.Sharpness, 2.01),
}


@pytest.mark.parametrize("name", ENHANCE)
def test_enhancement_is_pillows(rng, name):
    ours, theirs, bound = ENHANCE[name]
    run = quick_jit(ours)
    image = picture(rng)
    for factor in FACTORS:
        got = to_levels(run(to_float(image), factor))
        want = np.asarray(theirs(image).enhance(factor), np.float64)
        assert np.abs(got - want).max() <= bound, factor
        assert np.abs(got - want).mean() <= 1, factor
    assert np.abs(to_levels(run(to_float(image), 0.3)) - image).max() > 10


OPERATIONS = {
    "gray": (color.gray, ImageOps.grayscale, 0.51),  # rounds
    "invert": (color.invert, ImageOps.invert, 1e-3),
    "autocontrast": (color.autocontrast, ImageOps.autocontrast, 1.01),  # cuts off
    "equalize": (color.equalize, ImageOps.equalize, 1e-3),
    "solarize": (
        lambda x: color.solarize(x, 100.0),
        lambda x: ImageOps.solarize(x, 100),
        1e-3,
    ),
    "posterize": (
        lambda x: color.posterize(x, 3),
        lambda x: ImageOps.posterize(x, 3),
        1e-3,
    ),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_is_pillows(rng, name):
    ours, theirs, bound = OPERATIONS[name]
    run = quick_jit(ours)
    # Large enough that equalizing takes steps of several pixels.
    size = (40, 48)
    for image in (picture(rng, size), picture(rng, size, low=90, high=130)):
        got = to_levels(run(to_float(image)))
        want = np.asarray(theirs(image).convert("RGB"), np.float64)
        assert np.abs(got - want).max() <= bound


@pytest.mark.parametrize("level", [0, 77, 255])
def test_even_images_stay_as_they_are(level):
    image = to_float(Image.new("RGB", (24, 20), (level, level, level)))
    for operation in (color.equalize, color.autocontrast):
        np.testing.assert_array_equal(quick_jit(operation)(image), image)
    for operation in (color.contrast, color.saturation, color.sharpness):
        got = quick_jit(operation)(image, 1.9)
        np.testing.assert_allclose(got, image, atol=1e-6)


def test_one_even_channel_stays_while_the_others_are_stretched(rng):
    levels = np.array(picture(rng, low=90, high=130))
    levels[..., 1] = 50
    image = Image.fromarray(levels)
    for ours, theirs in (
        (color.equalize, ImageOps.equalize),
        (color.autocontrast, ImageOps.autocontrast),
    ):
        got = to_levels(quick_jit(ours)(to_float(image)))
        assert np.abs(got - np.asarray(theirs(image))).max() <= 1.01
        np.testing.assert_allclose(got[..., 1], 50, atol=1e-3)


def test_results_never_leave_the_range(rng):
    image = jnp.asarray(to_float(picture(rng)))
    for operation in (color.brightness, color.contrast, color.saturation):
        got = quick_jit(operation)(image, 5.0)
        assert -1 <= got.min() <= got.max() <= 1
        assert np.abs(got).max() == 1
