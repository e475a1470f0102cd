"""Crops kept on the canvas and cut-out: what is covered, how often and where."""

import jax
import numpy as np
import pytest

from kprpe_jax.augmentation import occlusion
from kprpe_jax.augmentation.occlusion import Occlusion
from tests.quick import quick_jit

SIZE = (30, 40)
IMAGE = np.full((*SIZE, 3), 0.5, np.float32)


def visible(settings: Occlusion, count: int) -> np.ndarray:
    """Which pixels [count, H, W] stay; checks that the rest is black."""

    def one(key):
        sampled = occlusion.sample(key, settings, size=SIZE)
        return occlusion.apply(IMAGE, sampled, settings)

    keys = jax.random.split(jax.random.key(0), count)
    images = np.asarray(quick_jit(jax.vmap(one))(keys))
    seen = images == 0.5
    assert (seen | (images == -1)).all()
    assert (seen == seen[..., :1]).all()
    return seen[..., 0]


def test_a_crop_is_one_box_of_the_area_and_shape_that_torchvision_samples():
    seen = visible(Occlusion(crop_prob=1.0), 1500)
    rows, columns = seen.any(axis=2), seen.any(axis=1)
    assert (seen == rows[:, :, None] & columns[:, None, :]).all()
    height, width = rows.sum(axis=1), columns.sum(axis=1)
    for line, length in ((rows, height), (columns, width)):
        first = line.argmax(axis=1)
        index = np.arange(line.shape[1])
        box = (index >= first[:, None]) & (index < (first + length)[:, None])
        assert (line == box).all()

    rng = np.random.default_rng(0)  # the slow way, one crop after another
    want = []
    for _ in range(1500):
        for _ in range(10):
            area = rng.uniform(0.2, 1.0) * SIZE[0] * SIZE[1]
            ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
            h, w = round(np.sqrt(area / ratio)), round(np.sqrt(area * ratio))
            if h <= SIZE[0] and w <= SIZE[1]:
                want.append((h, w, rng.integers(0, SIZE[0] - h + 1)))
                break
    got = np.stack([height, width, rows.argmax(axis=1)])
    levels = (0.02, 0.25, 0.5, 0.75, 0.98)
    np.testing.assert_allclose(
        np.quantile(got, levels, axis=1), np.quantile(want, levels, axis=0), atol=1.5
    )


def test_a_crop_that_never_fits_is_the_whole_image():
    # All of the area in a box of ratio 3/4 .. 4/3 is higher or wider than 10 x 40.
    settings = Occlusion(crop_prob=1.0, crop_area=(1.0, 1.0))
    sample = quick_jit(lambda key: occlusion.sample(key, settings, size=(10, 40)))
    np.testing.assert_array_equal(sample(jax.random.key(0)).crop, [[0, 0], [10, 40]])


def test_cut_out_makes_square_holes_inside_the_image_in_every_place():
    seen = visible(Occlusion(hole_prob=1.0, holes=(1, 1), hole_side=0.2), 1500)
    hidden = ~seen
    assert (hidden.sum(axis=(1, 2)) == 36).all()  # 6 x 6, none cut at the border
    assert (hidden.any(axis=2).sum(axis=1) == 6).all()
    assert (hidden.any(axis=1).sum(axis=1) == 6).all()
    assert set(hidden.any(axis=2).argmax(axis=1)) == set(range(25))
    assert set(hidden.any(axis=1).argmax(axis=1)) == set(range(35))


def test_the_number_of_holes_lies_between_fewest_and_most():
    settings = Occlusion(hole_prob=1.0, holes=(2, 4))
    keys = jax.random.split(jax.random.key(0), 600)
    sample = jax.vmap(lambda key: occlusion.sample(key, settings, size=SIZE).num_holes)
    count = np.bincount(quick_jit(sample)(keys))
    assert list(count[:2]) == [0, 0]
    assert len(count) == 5
    assert count[2:].min() > 150


@pytest.mark.parametrize("name", ["crop_prob", "hole_prob"])
def test_probability(name):
    seen = visible(Occlusion(**{name: 0.3}), 1000)
    assert abs((~seen).any(axis=(1, 2)).mean() - 0.3) < 0.05
