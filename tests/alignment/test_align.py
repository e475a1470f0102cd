"""Alignment of images by keypoints that are known."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from kprpe_jax.alignment.align import align_faces, pad_to_square, resize_square
from kprpe_jax.geometry import affine
from kprpe_jax.geometry.template import ARCFACE_112, face_template
from tests.quick import quick_jit

SIZE = (28, 28)
align = quick_jit(partial(align_faces, size=SIZE))


def turned_keypoints(size, degrees, scale):
    """The template, turned and scaled about its center, in a larger photo."""
    points = face_template(SIZE)
    middle = points.mean(0)
    matrix = affine.compose(
        affine.translation(-middle),
        affine.scaling(jnp.array([scale, scale]), jnp.zeros(2)),
        affine.rotation(degrees, jnp.zeros(2)),
        affine.translation(jnp.array(size[::-1]) / 2),
    )
    return affine.apply(matrix, points) / jnp.array(size[::-1], jnp.float32)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(60, 80), (90, 50)])
def test_a_face_comes_out_upright_at_the_template(size):
    keypoints = turned_keypoints(size, 30.0, 1.4)[None]
    # A photo whose two channels are the pixels' own coordinates, from -1 to 1.
    y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in size), indexing="ij")
    photo = jnp.asarray(np.stack([x, y], -1)[None], jnp.float32)
    aligned = align(photo, keypoints)
    np.testing.assert_allclose(
        aligned.keypoints[0] * 28, face_template(SIZE), atol=1e-3
    )
    # At the template's places the photo's coordinates are those of the keypoints.
    places = face_template(SIZE) - 0.5
    for point, place in zip(keypoints[0], places, strict=True):
        low = np.floor(place).astype(int)
        rest = place - low
        patch = np.asarray(aligned.images)[0, low[1] :, low[0] :][:2, :2]
        weights = np.outer([1 - rest[1], rest[1]], [1 - rest[0], rest[0]])
        got = (patch * weights[..., None]).sum((0, 1))
        pixel = point * jnp.array(size[::-1]) - 0.5
        want = 2 * pixel / (jnp.array(size[::-1]) - 1) - 1
        np.testing.assert_allclose(got, want, atol=1e-3)


def test_outside_the_photo_is_black():
    keypoints = turned_keypoints((30, 30), 0.0, 3.0)[None] + 2.0
    aligned = align(jnp.ones((1, 30, 30, 3)), keypoints)
    np.testing.assert_array_equal(aligned.images, -np.ones((1, *SIZE, 3)))


@pytest.mark.slow
def test_gradients_to_keypoints_equal_finite_differences():
    y, x = np.meshgrid(np.arange(60.0), np.arange(60.0), indexing="ij")
    photo = jnp.asarray(np.stack([x, y, x + y], -1)[None] / 60, jnp.float32)
    keypoints = turned_keypoints((60, 60), 20.0, 1.2)[None]

    def run(keypoints):
        return align_faces(photo, keypoints, size=SIZE).images

    check_grads(jax.jit(run), (keypoints,), 1, ["rev"], 1e-2, 1e-2, eps=1e-3)
    stopped = jax.grad(
        lambda k: align_faces(photo, k, size=SIZE, stop_gradient=True).images.sum()
    )(keypoints)
    assert not stopped.any()


@pytest.mark.slow
def test_degenerate_keypoints_are_finite(rng):
    keypoints = np.stack(
        [
            np.full((5, 2), 0.4),  # one place
            np.linspace(0.2, 0.8, 10).reshape(5, 2),  # a line
            face_template(SIZE)[[1, 0, 2, 4, 3]] / 28,  # left and right exchanged
            np.full((5, 2), 1e4),  # far away
        ]
    )
    photo = jnp.asarray(rng.uniform(-1, 1, size=(4, 20, 30, 3)), jnp.float32)

    @jax.jit
    def run(photo, keypoints):
        return align_faces(photo, keypoints, size=SIZE)

    got, pullback = jax.vjp(run, photo, jnp.asarray(keypoints, jnp.float32))
    gradients = pullback(jax.tree.map(jnp.ones_like, got))
    assert all(np.isfinite(a).all() for a in jax.tree.leaves((got, gradients)))
    assert float(jnp.abs(got.images).max()) <= 1 + 1e-5


def test_padding_is_black_and_in_the_middle():
    padded, corner = pad_to_square(jnp.ones((1, 4, 10, 3)), padding_ratio=0.25)
    assert padded.shape == (1, 14, 14, 3)
    assert corner == (5, 2)
    inside = padded[0, 5:9, 2:12]
    np.testing.assert_array_equal(inside, jnp.ones((4, 10, 3)))
    assert float(padded.sum()) == inside.size - (padded.size - inside.size)
    resized = resize_square(jnp.ones((1, 1, 1, 3)), 8, align_corners=True)
    np.testing.assert_array_equal(resized, jnp.ones((1, 8, 8, 3)))


@pytest.mark.parametrize("size", [(56, 56), (160, 128)])
def test_template_points_of_another_size(rng, size):
    """The official aligner's: those of 112, in pixels, whatever the output's size."""
    images = rng.uniform(-1, 1, (1, 96, 80, 3)).astype(np.float32)
    keypoints = (face_template((96, 80)) / [80, 96])[None].astype(np.float32)
    keypoints += rng.uniform(-0.01, 0.01, keypoints.shape).astype(np.float32)
    got = align_faces(images, keypoints, size=size, template_size=(112, 112))
    fitted = np.asarray(got.keypoints[0]) * size[::-1]
    np.testing.assert_allclose(fitted.mean(0), ARCFACE_112.mean(0), atol=1e-3)
    own = align_faces(images, keypoints, size=size)
    again = align_faces(images, keypoints, size=size, template_size=size)
    np.testing.assert_array_equal(own.theta, again.theta)
