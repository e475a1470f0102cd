"""Sequences of color operations: how often, how strong, in which order."""

import jax
import numpy as np
import pytest
from PIL import ImageEnhance, ImageOps

from kprpe_jax.augmentation import photometric
from kprpe_jax.augmentation.photometric import (
    OPERATIONS,
    Photometric,
    PhotometricSample,
)
from kprpe_jax.augmentation.recipe import PRESETS
from tests.augmentation.pictures import picture, to_float, to_levels
from tests.quick import quick_jit

NAMES = tuple(OPERATIONS)
EVERYTHING = Photometric(ops=NAMES, weights=(1,) * len(NAMES))

apply = quick_jit(photometric.apply, static_argnames="settings")


def samples(settings: Photometric, count: int) -> PhotometricSample:
    keys = jax.random.split(jax.random.key(0), count)
    return quick_jit(jax.vmap(lambda key: photometric.sample(key, settings)))(keys)


def sampled(*operations: tuple[str, float, float]) -> PhotometricSample:
    names, strength, sign = zip(*operations, strict=True)
    ops = [NAMES.index(name) + 1 for name in names]
    return PhotometricSample(np.array(ops), np.float32(strength), np.float32(sign))


# At strength 1/2: factors 1 +- 0.45, 6 bits, threshold 127.5.
PILLOW = {
    "identity": lambda x, sign: x,
    "brightness": lambda x, sign: ImageEnhance.Brightness(x).enhance(1 + 0.45 * sign),
    "contrast": lambda x, sign: ImageEnhance.Contrast(x).enhance(1 + 0.45 * sign),
    "saturation": lambda x, sign: ImageEnhance.Color(x).enhance(1 + 0.45 * sign),
    "sharpness": lambda x, sign: ImageEnhance.Sharpness(x).enhance(1 + 0.45 * sign),
    "equalize": lambda x, sign: ImageOps.equalize(x),
    "gray": lambda x, sign: ImageOps.grayscale(x).convert("RGB"),
    "autocontrast": lambda x, sign: ImageOps.autocontrast(x),
    "posterize": lambda x, sign: ImageOps.posterize(x, 6),
    "solarize": lambda x, sign: ImageOps.solarize(x, 128),
    "invert": lambda x, sign: ImageOps.invert(x),
}


@pytest.mark.parametrize("sign", [-1, 1])
def test_each_name_is_pillows_operation_at_the_sampled_strength(rng, sign):
    image = picture(rng)
    for name in NAMES:
        one = sampled((name, 0.5, sign), ("identity", 0.0, 1))
        got = to_levels(apply(to_float(image), one, EVERYTHING))
        want = np.asarray(PILLOW[name](image, sign), float)
        assert np.abs(got - want).max() <= 2.01, name


def test_operations_follow_one_another_from_first_to_last(rng):
    image = picture(rng)
    for names in (("brightness", "solarize"), ("solarize", "brightness")):
        want = image
        for name in names:
            want = PILLOW[name](want, -1)
        sequence = sampled(*((name, 0.5, -1) for name in names))
        got = to_levels(apply(to_float(image), sequence, EVERYTHING))
        difference = np.abs(got - np.asarray(want, float))
        # A level that Pillow rounds across the threshold is inverted on one side only.
        assert np.quantile(difference, 0.97) <= 2.01


def test_operation_zero_is_none_bit_for_bit(rng):
    image = to_float(picture(rng))
    none = sampled(("invert", 1.0, 1), ("gray", 1.0, 1))._replace(ops=np.zeros(2, int))
    np.testing.assert_array_equal(apply(image, none, EVERYTHING), image)


def test_kprpe_draws_as_its_authors_do():
    settings = PRESETS["kprpe"].photometric
    got = samples(settings, 6000)
    share = np.bincount(np.asarray(got.ops).ravel(), minlength=8) / 12000
    # The slow way: equalize and gray, when sampled, are sampled anew up to two times.
    rare, want = (5, 6), np.zeros(7)
    for a in range(7):
        for b in range(7):
            for c in range(7):
                last = a if a not in rare else b if b not in rare else c
                want[last] += 1 / 343
    np.testing.assert_allclose(share, [0, *want], atol=0.01)
    bins = np.rint(np.asarray(got.strength) * 30).astype(int)
    assert set(np.unique(bins)) == set(range(5, 23))  # 14 - 9 .. 14 + 8 of 0..30
    assert abs((np.asarray(got.sign) > 0).mean() - 0.5) < 0.03
    first, second = np.asarray(got.ops).T
    assert abs((first == second).mean() - (want**2).sum()) < 0.03  # independent


def test_magnitude_without_spread_is_the_magnitude_itself():
    got = samples(Photometric(prob=1.0), 50)
    np.testing.assert_allclose(got.strength, 14 / 30, atol=1e-6)


def test_jitter_applies_each_operation_once_in_every_order():
    got = samples(Photometric(prob=1.0, kind="jitter"), 3000)
    orders, counts = np.unique(got.ops, axis=0, return_counts=True)
    assert sorted(map(tuple, orders)) == [
        (1, 2, 3), (1, 3, 2), (2, 1, 3), (2, 3, 1), (3, 1, 2), (3, 2, 1),
    ]  # fmt: skip
    assert counts.min() > 400
    factor = 1 + 0.9 * np.asarray(got.sign) * np.asarray(got.strength)
    assert 0.5 <= factor.min() < 0.51 < 1.49 < factor.max() <= 1.5
    assert abs(factor.mean() - 1) < 0.02


def test_probability():
    got = samples(Photometric(prob=0.3), 3000)
    none = np.asarray(got.ops) == 0
    assert (none[:, 0] == none[:, 1]).all()
    assert abs(none[:, 0].mean() - 0.7) < 0.03
