"""Warps against what they are defined by: where a pixel shows up."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.alignment import warps
from kprpe_jax.core.input_spec import BLACK
from kprpe_jax.geometry import thin_plate_spline as tps

KINDS = [("affine", (2, 2)), ("projective", (2, 2)), ("tps", (2, 2)), ("tps", (4, 5))]
POINTS = np.float32([[-0.5, 0.2], [0.1, 0.3], [0.6, -0.7]])


def outputs_of(kind, control, rng, size=0.08):
    count = warps.num_parameters(kind, control)
    return size * rng.normal(size=(2, count)).astype(np.float32)


@pytest.mark.parametrize(("kind", "control"), KINDS)
def test_outputs_of_zero_are_the_identity(kind, control):
    """Bit for bit for the pixels, and with gradients that are finite."""
    images = np.random.default_rng(0).normal(size=(1, 6, 7, 2)).astype(np.float32)
    zeros = np.zeros((1, warps.num_parameters(kind, control)), np.float32)

    @jax.jit
    def run(outputs):
        warp = warps.learned_warp(outputs, kind, control)
        warped = warps.warp_map(warp, images)
        points = warp.to_input(POINTS[None]), warp.to_output(POINTS[None])
        return jnp.square(warped).sum() + sum(p.sum() for p in points), (warped, points)

    (_, (warped, points)), grads = jax.jit(jax.value_and_grad(run, has_aux=True))(zeros)
    np.testing.assert_allclose(warped, images, atol=1e-5)
    for got in points:
        np.testing.assert_allclose(got[0], POINTS, atol=1e-6)
    assert np.isfinite(grads).all()
    assert np.abs(grads).max() > 0


@pytest.mark.parametrize(("kind", "control"), KINDS)
def test_grid_and_points_are_one_function(kind, control, rng):
    """The grid is `to_input` of the pixel centers, and `to_output` its inverse."""
    outputs = outputs_of(kind, control, rng)

    @jax.jit
    def run(outputs):
        warp = warps.learned_warp(outputs, kind, control)
        inside = warp.to_input(jnp.tile(POINTS, (2, 1, 1)))
        return warp.grid((3, 5)), inside, warp.to_output(inside), warp.to_input(centers)

    x, y = np.meshgrid((np.arange(5) + 0.5) / 2.5 - 1, (np.arange(3) + 0.5) / 1.5 - 1)
    centers = np.tile(np.stack([x, y], -1).reshape(1, 15, 2), (2, 1, 1))
    centers = centers.astype(np.float32)
    grid, _, back, want = run(outputs)
    np.testing.assert_allclose(grid.reshape(2, 15, 2), want, atol=1e-5)
    np.testing.assert_allclose(back, np.tile(POINTS, (2, 1, 1)), atol=1e-5)


def test_two_by_two_is_less_free_than_eight_by_eight(rng):
    """A 2 x 2 spline has 8 numbers, and moves its corners where they say."""
    outputs = outputs_of("tps", (2, 2), rng)
    assert outputs.shape == (2, 8)
    corners = tps.control_grid(2, 2)
    moved = warps.learned_warp(jnp.array(outputs), "tps", (2, 2)).to_input(
        jnp.tile(corners, (2, 1, 1))
    )
    np.testing.assert_allclose(moved, corners + outputs.reshape(2, 4, 2), atol=1e-5)
    assert warps.num_parameters("tps", (8, 8)) == 128


def template_and_faces(rng):
    template = np.concatenate([POINTS, rng.uniform(-0.9, 0.9, (4, 2))])
    linear = np.array([[1.1, 0.2], [-0.15, 0.9]])
    faces = template @ linear.T + [0.1, -0.05]
    return template.astype(np.float32), faces[None].astype(np.float32), linear


def test_affine2d_fits_its_points_by_least_squares(rng):
    template, faces, linear = template_and_faces(rng)
    noise = np.zeros_like(faces)
    noise[:, 5:] = 0.3  # landmarks that it does not look at

    @jax.jit
    def aligned(landmarks, points):
        warp = warps.landmark_warp("affine2d", landmarks, template, (0, 1, 2, 3, 4))
        return warp.to_output(points)

    got = aligned(faces + noise, faces)
    np.testing.assert_allclose(got, template[None], atol=1e-5)

    noise = 0.05 * rng.normal(size=faces.shape)
    noisy = (faces + noise).astype(np.float32)
    ones = np.concatenate([noisy[0, :5], np.ones((5, 1))], 1)
    solution, *_ = np.linalg.lstsq(ones, template[:5], rcond=None)
    got = aligned(noisy, noisy)[0, :5]
    np.testing.assert_allclose(got, ones @ solution, atol=1e-4)


def test_full_align_meets_every_landmark(rng):
    template, faces, _ = template_and_faces(rng)
    faces = (faces + 0.05 * rng.normal(size=faces.shape)).astype(np.float32)

    @jax.jit
    def both(faces):
        warp = warps.landmark_warp("full_align", faces, template, ())
        return warp.to_input(template[None]), warp.to_output(faces)

    there, back = both(faces)
    np.testing.assert_allclose(there, faces, atol=1e-4)
    np.testing.assert_allclose(back[0], template, atol=1e-4)


def test_full_align_brings_what_stands_at_the_landmarks_to_the_template(rng):
    template = (rng.permutation(36)[:9][:, None] // [1, 6] % 6 * 5 + 5.5) / 36
    keypoints = template + rng.integers(-1, 2, size=(2, 9, 2)) / 36
    images = np.zeros((2, 36, 36, 1), np.float32)
    for b, k in np.ndindex(2, 9):
        x, y = np.floor(keypoints[b, k] * 36).astype(int)
        images[b, y, x] = 1

    @jax.jit
    def align(images, keypoints):
        points = 2 * template - 1
        warp = warps.landmark_warp("full_align", 2 * keypoints - 1, points, ())
        return warps.warp_map(warp, images)

    got = align(images, keypoints)
    for b, k in np.ndindex(2, 9):
        x, y = np.floor(template[k] * 36).astype(int)
        assert got[b, y, x, 0] > 0.999


def test_a_warped_map_shows_the_input_where_the_warp_says(rng):
    """A bright pixel of the input appears where its center is carried to."""
    images = np.full((1, 20, 20, 1), -1, np.float32)
    images[0, 6, 13] = 1.0
    center = np.float32([[(13 + 0.5) / 20, (6 + 0.5) / 20]])[None]

    @jax.jit
    def run(theta):
        warp = warps.affine_warp(theta)
        warped = warps.warp_map(warp, images, outside=BLACK)
        return warped, warps.carry_keypoints(warp, center)

    warped, carried = run(jnp.array([[[1.0, 0, 0.3], [0, 1.0, -0.1]]]))
    row, column = np.unravel_index(np.argmax(warped[0, ..., 0]), (20, 20))
    assert (row, column) == (7, 10)  # 0.3 to the left, 0.1 down, of 2 / 20 a pixel
    np.testing.assert_allclose(warped[0, :, -1, 0], -1)  # came from beyond the edge
    np.testing.assert_allclose(carried[0, 0], [10.5 / 20, 7.5 / 20], atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_maps_keep_their_type(dtype):
    maps = jnp.ones((1, 4, 4, 3), dtype)
    warped = warps.warp_map(warps.identity_warp(1), maps)
    assert warped.dtype == maps.dtype
    np.testing.assert_array_equal(warped.astype(np.float32), np.ones((1, 4, 4, 3)))


def test_wild_and_degenerate_parameters_stay_finite():
    flat = np.float32([[-1, 0, -1, -1, -1, -1]])  # the plane becomes a line
    same = np.full((1, 3, 2), 0.25, np.float32)  # all landmarks in one place

    @jax.jit
    def run(flat, wild, same):
        results = []
        for warp in (
            warps.learned_warp(flat, "affine", (2, 2)),
            warps.learned_warp(wild, "projective", (2, 2)),
            warps.landmark_warp("full_align", same, POINTS, ()),
            warps.landmark_warp("affine2d", same, POINTS, (0, 1, 2)),
        ):
            results += [warp.grid((4, 4)), warp.to_input(POINTS[None])]
            results += [warp.to_output(POINTS[None])]
        return results

    results = run(flat, np.full((1, 8), 50.0, np.float32), same)
    for number, result in enumerate(results):
        if number != 5:  # a projective map without an inverse, as documented
            assert np.isfinite(result).all(), number


def test_nan_parameters_stay_with_their_image():
    outputs = np.zeros((2, 8), np.float32)
    outputs[0] = np.nan

    @jax.jit
    def run(outputs):
        warp = warps.learned_warp(outputs, "tps", (2, 2))
        return warps.warp_map(warp, jnp.ones((2, 4, 4, 1)))

    warped = run(outputs)
    assert np.isnan(warped[0]).all()
    np.testing.assert_allclose(warped[1], 1, atol=1e-5)


def test_faults_are_one_sentence():
    with pytest.raises(ValueError, match="must be one of affine, projective, tps; got"):
        warps.num_parameters("rigid", (2, 2))
    line = np.float32([[0, 0], [0.1, 0.1], [0.2, 0.2]])
    with pytest.raises(ValueError, match="the 3 control points must be finite, distin"):
        warps.landmark_warp("full_align", jnp.zeros((1, 3, 2)), line, ())
