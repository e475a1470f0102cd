"""The one affine map against Pillow, and keypoints that stay on what they mark."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from kprpe_jax.augmentation import spatial
from kprpe_jax.augmentation.spatial import FACE_MIRROR, Motion, Spatial
from kprpe_jax.geometry import affine, sampling
from tests.augmentation.pictures import picture, to_float, to_levels
from tests.quick import quick_jit

SIZE = (32, 40)
ALL = Spatial(
    flip_prob=0.5,
    rotation_prob=1.0,
    shear_prob=1.0,
    scale_prob=1.0,
    translation_prob=1.0,
)

sample = quick_jit(spatial.sample, static_argnames=("settings", "size"))
warp = quick_jit(spatial.warp, static_argnames="settings")
move = quick_jit(spatial.move_keypoints, static_argnames=("size", "mirror"))


@pytest.mark.parametrize("seed", range(4))
def test_warp_is_pillows_inside_the_old_picture(rng, seed):
    image = picture(rng, SIZE)
    motion = sample(jax.random.key(seed), ALL, size=SIZE)
    got = to_levels(warp(to_float(image), motion, ALL))
    inverse = np.asarray(affine.invert(motion.matrix))
    want = image.transform(
        (SIZE[1], SIZE[0]),
        Image.Transform.AFFINE,
        inverse.ravel(),
        Image.Resampling.BILINEAR,
    )
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    old_x, old_y = np.einsum("ij,jhw->ihw", inverse, np.stack([x, y, np.ones_like(x)]))
    margin = np.minimum.reduce([old_x, old_y, SIZE[1] - old_x, SIZE[0] - old_y])
    # At the border itself Pillow goes on with the outermost pixel for half a pixel.
    difference = np.abs(got - np.asarray(want)).max(axis=-1)
    assert (margin > 0.5).mean() > 0.4
    assert difference[margin > 0.51].max() <= 1.01
    assert np.abs(got[margin < -0.51]).max(initial=0) <= 1e-3  # black


def test_warp_is_that_of_the_geometry_with_black_outside(rng):
    image = to_float(picture(rng, SIZE))
    motion = sample(jax.random.key(5), ALL, size=SIZE)
    warp_zeros = quick_jit(sampling.warp_affine, static_argnames="out_size")
    inverse = affine.invert(motion.matrix)[None]
    want = warp_zeros(image[None] + 1, inverse, out_size=SIZE)
    np.testing.assert_allclose(warp(image, motion, ALL), want[0] - 1, atol=1e-5)


def test_a_flip_alone_is_exact_and_swaps_left_and_right(rng):
    image = to_float(picture(rng, SIZE))
    points = rng.uniform(0.1, 0.9, (5, 2)).astype(np.float32)
    for settings in (Spatial(flip_prob=1.0), Spatial(flip_prob=1.0, scale_prob=1e-9)):
        motion = sample(jax.random.key(0), settings, size=SIZE)
        assert motion.flip
        assert not motion.moves
        np.testing.assert_array_equal(warp(image, motion, settings), image[:, ::-1])
        got = move(points, motion, size=SIZE, mirror=FACE_MIRROR)
        want = points[[1, 0, 2, 4, 3]] * [-1, 1] + [1, 0]
        np.testing.assert_allclose(got, want, atol=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_a_dot_painted_at_a_keypoint_lands_at_the_moved_keypoint(seed):
    colors = np.eye(3, dtype=np.float32)  # the left eye is red, the right one green
    points = np.array([[0.4, 0.45], [0.6, 0.5], [0.5, 0.6]], np.float32)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    image = -np.ones((*SIZE, 3), np.float32)
    for (px, py), color in zip(points * SIZE[::-1], colors, strict=True):
        dot = np.exp(-((x - px) ** 2 + (y - py) ** 2) / 4)
        image += 2 * dot[..., None].astype(np.float32) * color
    mirror = (1, 0, 2)
    motion = sample(jax.random.key(seed), ALL, size=SIZE)
    light = np.asarray(warp(image, motion, ALL)) + 1
    moved = np.asarray(move(points, motion, size=SIZE, mirror=mirror)) * SIZE[::-1]
    mass = light.sum(axis=(0, 1))
    center = np.stack([(light * axis[..., None]).sum((0, 1)) / mass for axis in (x, y)])
    # In a flipped image the first point, the left eye, is the old right eye: green.
    order = list(mirror) if motion.flip else [0, 1, 2]
    np.testing.assert_allclose(moved, center.T[order], atol=0.25)
    assert np.abs(moved / SIZE[::-1] - points).max() > 0.02


def test_both_kinds_of_seeds_are_among_the_dots():
    flips = [bool(sample(jax.random.key(s), ALL, size=SIZE).flip) for s in range(6)]
    assert True in flips
    assert False in flips


def test_draws_follow_the_settings():
    settings = Spatial(rotation_prob=0.3, scale_prob=1.0, translation_prob=1.0)
    keys = jax.random.split(jax.random.key(1), 4000)
    many = quick_jit(jax.vmap(lambda key: spatial.sample(key, settings, size=SIZE)))
    motion = many(keys)
    linear = np.asarray(motion.matrix[..., :2])
    angle = np.degrees(np.arctan2(linear[:, 1, 0], linear[:, 0, 0]))
    scale = np.sqrt(np.linalg.det(linear))
    assert motion.moves.all()
    assert not motion.flip.any()
    assert abs((np.abs(angle) > 1e-3).mean() - 0.3) < 0.03
    assert 19.5 < np.abs(angle).max() <= 20.01
    assert 0.8 - 1e-4 <= scale.min() < 0.805 < 1.195 < scale.max() <= 1.2 + 1e-4
    # The frame's center moves by at most half of |1 / scale - 1 + extra| of the side.
    middle = np.array([[SIZE[1] / 2, SIZE[0] / 2]], np.float32)
    shift = np.asarray(affine.apply(motion.matrix, jnp.asarray(middle)))[:, 0] - middle
    share = np.abs(shift / middle) / scale[:, None]
    ends = np.abs(1 / scale[:, None] - 1 + np.array([0, 0.1]))
    assert (share <= ends.max(axis=1, keepdims=True) + 1e-4).all()
    assert share.max() > 0.25


def test_nothing_sampled_changes_nothing(rng):
    settings = Spatial(*[1e-9 if "prob" in f else v for f, v in ALL._asdict().items()])
    image = to_float(picture(rng, SIZE))
    points = rng.uniform(size=(5, 2)).astype(np.float32)
    motion = sample(jax.random.key(0), settings, size=SIZE)
    np.testing.assert_array_equal(warp(image, motion, settings), image)
    got = move(points, motion, size=SIZE, mirror=FACE_MIRROR)
    np.testing.assert_array_equal(got, points)


def test_motion_far_outside_is_black():
    matrix = jnp.array([[1.0, 0, 1e6], [0, 1.0, -1e6]])
    motion = Motion(matrix, jnp.array(False), jnp.array(True))
    got = warp(np.zeros((*SIZE, 3), np.float32), motion, ALL)
    np.testing.assert_array_equal(got, -np.ones((*SIZE, 3)))
