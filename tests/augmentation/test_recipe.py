"""The whole recipe on a batch: keys, independence, types, presets, bad arguments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from kprpe_jax.augmentation.recipe import PRESETS, augment, make_recipe
from tests.augmentation.pictures import picture, to_float
from tests.quick import quick_jit

KPRPE = PRESETS["kprpe"]
SURE = make_recipe(
    "kprpe",
    spatial={"rotation_prob": 1.0},
    occlusion={"crop_prob": 1.0, "hole_prob": 1.0},
    blur={"prob": 1.0},
)

LIGHT = make_recipe(  # quick to compile
    "none", spatial={"flip_prob": 0.5, "rotation_prob": 1}, photometric={"prob": 1}
)

run = quick_jit(augment, static_argnames=("recipe", "mirror"))


@pytest.fixture
def batch(rng):
    levels = np.stack([np.asarray(picture(rng)) for _ in range(4)])
    return levels, rng.uniform(0.2, 0.8, (4, 5, 2)).astype(np.float32)


@pytest.mark.slow
def test_an_image_depends_on_its_own_key_alone(batch):
    images, points = batch
    keys = jax.random.split(jax.random.key(3), 4)
    got, moved = run(keys, images, points, SURE)
    order = np.array([2, 0, 3, 1])
    other, others = run(keys[order], images[order], points[order], SURE)
    np.testing.assert_array_equal(other, got[order])
    np.testing.assert_array_equal(others, moved[order])
    strange = images.copy()
    strange[1:] = 255 - strange[1:]
    changed, _ = run(keys, strange, points, SURE)
    np.testing.assert_array_equal(changed[0], got[0])
    assert np.abs(changed[1:] - got[1:]).max() > 0.1


@pytest.mark.slow
def test_one_key_serves_batches_of_any_size_and_makes_its_images_differ(batch):
    images, points = batch
    same = np.repeat(images[:1], 4, axis=0)
    key = jax.random.key(1)
    got, _ = run(key, same, points, LIGHT)
    assert min(np.abs(got[i] - got[j]).max() for i in range(4) for j in range(i)) > 0.05
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(4))
    again, _ = run(keys, same, points, LIGHT)
    np.testing.assert_array_equal(again, got)
    half, _ = run(key, same[:2], points[:2], LIGHT)
    np.testing.assert_array_equal(half, got[:2])


@pytest.mark.slow
def test_side_by_side_as_on_accelerators_is_the_same_as_taking_turns(batch):
    images, points = batch
    keys = jax.random.split(jax.random.key(4), 4)

    def one(key, image, points):
        return augment(key[None], image[None], points[None], SURE)

    got, moved = quick_jit(jax.vmap(one))(keys, images, points)
    want, wanted = run(keys, images, points, SURE)
    np.testing.assert_allclose(got[:, 0], want, atol=2e-5)
    np.testing.assert_allclose(moved[:, 0], wanted, atol=1e-6)


@pytest.mark.slow
def test_probability_zero_is_the_image_bit_for_bit(batch):
    images, points = batch
    floats = images.astype(np.float32) / np.float32(127.5) - 1
    never = make_recipe(
        "kprpe",
        spatial=dict.fromkeys(
            ("flip_prob", "rotation_prob", "scale_prob", "translation_prob"), 1e-9
        ),
        occlusion={"crop_prob": 1e-9, "hole_prob": 1e-9},
        blur={"prob": 1e-9},
        photometric={"prob": 1e-9},
    )
    for recipe in (PRESETS["none"], never):
        got, moved = run(jax.random.key(0), floats, points, recipe)
        np.testing.assert_array_equal(got, floats)
        np.testing.assert_array_equal(moved, points)


def test_probability_one_is_always(batch):
    images, points = batch
    recipe = make_recipe(
        "none",
        spatial={"flip_prob": 1},
        photometric={"prob": 1, "ops": ["invert"], "weights": [1], "num_ops": 1},
    )
    got, moved = run(jax.random.key(0), images, points, recipe)
    np.testing.assert_allclose(got, 1 - images[:, :, ::-1] / 127.5, atol=1e-6)
    want = points[:, [1, 0, 2, 4, 3]] * [-1, 1] + [1, 0]
    np.testing.assert_allclose(moved, want, atol=1e-6)


@pytest.mark.slow
def test_the_parts_follow_one_another_as_the_recipe_lists_them(batch):
    images, points = batch
    recipe = make_recipe(
        "none",
        occlusion={"hole_prob": 1.0, "hole_side": 0.5},
        blur={"prob": 1.0, "weights": [0, 1, 0], "sigma": 20.0},
        photometric={"prob": 1, "ops": ["invert"], "weights": [1], "num_ops": 1},
    )
    got, _ = run(jax.random.key(0), np.full_like(images, 255), points, recipe)
    # White with a black hole, its edge blurred, then the negative: the hole is bright.
    assert got.max() > 0.5
    assert got.min() < -0.9
    assert np.unique(got).size > 20


def test_steps_with_other_keys_and_images_do_not_compile_again(batch):
    images, points = batch
    step = jax.jit(augment, static_argnames="recipe")
    recipe = make_recipe("none", photometric={"prob": 0.5})
    for seed in range(3):
        first, _ = step(jax.random.key(seed), images + seed, points, recipe)
        again, _ = step(jax.random.key(seed), images + seed, points, recipe)
        np.testing.assert_array_equal(first, again)
    assert step._cache_size() == 1


@pytest.mark.slow
def test_bfloat16_is_the_float32_result_of_the_rounded_image(batch):
    images, points = batch
    rounded = jnp.asarray(images / 127.5 - 1, jnp.bfloat16)
    got, moved = run(jax.random.key(2), rounded, points, LIGHT)
    want, _ = run(jax.random.key(2), rounded.astype(jnp.float32), points, LIGHT)
    assert got.dtype == moved.dtype == jnp.float32
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("level", [0, 128, 255])
def test_even_images_stay_finite(level):
    images = np.full((4, 20, 24, 3), level, np.uint8)
    names = ("equalize", "autocontrast", "contrast", "sharpness")
    recipe = make_recipe(
        "none", photometric={"prob": 1, "ops": names, "weights": (1,) * 4, "spread": 9}
    )
    got, _ = run(jax.random.key(0), images, np.full((4, 5, 2), 0.5), recipe)
    assert np.isfinite(got).all()
    assert -1 <= got.min() <= got.max() <= 1


def test_other_numbers_of_keypoints(batch):
    images, _ = batch
    flip = make_recipe("none", spatial={"flip_prob": 1})
    got, moved = run(jax.random.key(0), images, np.zeros((4, 0, 2)), flip)
    assert moved.shape == (4, 0, 2)
    np.testing.assert_allclose(got, to_float(images[:, :, ::-1]), atol=1e-6)
    two = np.tile(np.float32([[0.1, 0.2], [0.6, 0.7]]), (4, 1, 1))
    _, moved = run(jax.random.key(0), images, two, flip, mirror=(1, 0))
    np.testing.assert_allclose(moved[0], [[0.4, 0.7], [0.9, 0.2]], atol=1e-6)


def test_a_sharded_batch_is_augmented_the_same(batch):
    images, points = (np.concatenate([part] * 2) for part in batch)
    want = run(jax.random.key(0), images, points, LIGHT)
    mesh = Mesh(np.array(jax.devices()[:2]), ("data",))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    images, points = jax.device_put((images, points), sharding)
    got = run(jax.random.key(0), images, points, LIGHT)
    for ours, theirs in zip(got, want, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_presets_state_the_papers_numbers():
    assert KPRPE.spatial.rotation_degrees == 20
    assert (KPRPE.photometric.magnitude, KPRPE.photometric.bins) == (14, 31)
    adaface = PRESETS["adaface"]
    parts = (adaface.occlusion.crop_prob, adaface.blur.prob, adaface.photometric.prob)
    assert parts == (0.2, 0.2, 0.2)
    assert hash(make_recipe("kprpe", blur={"side": [0.5, 1]})) != hash(KPRPE)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"color": {}}, "parts must be of spatial.*got 'color'"),
        ({"blur": {"probability": 1}}, "fields of blur must be of prob.*'probability'"),
        ({"blur": {"prob": 1.5}}, r"blur.prob must lie in 0..1; got 1.5"),
        ({"spatial": {"scale": (1.2, 0.8)}}, r"spatial.scale must be \(low, high\)"),
        ({"spatial": {"scale": 1.2}}, r"spatial.scale must be \(low, high\).*got 1.2"),
        ({"occlusion": {"crop_area": (0, 1)}}, "occlusion.crop_area must be"),
        ({"photometric": {"ops": ["hue"]}}, "photometric.ops must be of .*got 'hue'"),
        ({"photometric": {"kind": "auto"}}, "photometric.kind must be of randaugment"),
        ({"photometric": {"weights": (1, 2)}}, "photometric.weights must be 7 numbers"),
        ({"photometric": {"magnitude": 31}}, r"magnitude must lie in 0..30; got 31"),
        ({"blur": {"weights": (0, 0, 0)}}, "blur.weights must be 3 numbers >= 0"),
        ({"blur": {"prob": "often"}}, "blur.prob must lie in 0..1; got 'often'"),
    ],
)
def test_recipes_that_make_no_sense_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        make_recipe("kprpe", **changes)


def test_unknown_presets_are_named():
    with pytest.raises(ValueError, match="preset must be one of none, kprpe, adaface"):
        make_recipe("imagenet")


@pytest.mark.parametrize(
    ("images", "points", "rng", "mirror", "message"),
    [
        ((4, 9, 9, 1), (4, 5, 2), 0, None, r"images must be \[B, H, W, 3\].*9, 1\]"),
        ((4, 9, 9, 3), (3, 5, 2), 0, None, r"keypoints must be \[B, K, 2\] with B = 4"),
        ((4, 9, 9, 3), (4, 5, 2), 3, None, "one random key or 4 of them"),
        ((4, 9, 9, 3), (4, 5, 2), None, None, "one random key or 4.*uint32"),
        ((4, 9, 9, 3), (4, 4, 2), 0, None, "mirror must swap 4 points in pairs"),
        ((4, 9, 9, 3), (4, 3, 2), 0, (1, 2, 0), "mirror must swap 3 points in pairs"),
    ],
)
def test_arrays_that_do_not_fit_are_named(images, points, rng, mirror, message):
    key = jax.random.key(0)
    if rng is None:
        key = jax.random.PRNGKey(0)
    elif rng:
        key = jax.random.split(key, rng)
    options = {} if mirror is None else {"mirror": mirror}
    with pytest.raises(ValueError, match=message):
        augment(key, jnp.zeros(images), jnp.zeros(points), KPRPE, **options)


def test_whole_numbers_other_than_bytes_are_named():
    images = jnp.zeros((1, 9, 9, 3), jnp.int32)
    with pytest.raises(ValueError, match="uint8 in 0..255 or floating.*got int32"):
        augment(jax.random.key(0), images, jnp.zeros((1, 5, 2)), KPRPE)
