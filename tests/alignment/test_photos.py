"""Faces cut from photos and aligned, or the reason why not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from kprpe_jax.alignment.align import align_faces
from kprpe_jax.alignment.framing import NoFaceError
from kprpe_jax.alignment.photos import (
    align,
    align_patches,
    cut_patch,
    patch_side,
)
from kprpe_jax.core.input_spec import InputSpec, to_bytes
from kprpe_jax.geometry.template import face_template
from tests.detection.stand_in import POINTS, SIZE, smooth_photo

SPEC = InputSpec(SIZE)


def test_a_face_is_aligned_as_its_whole_photo(rng):
    photo = rng.integers(0, 256, (150, 140, 3)).astype(np.uint8)
    points = face_template((40, 40)) @ np.float32([[0.9, 0.3], [-0.3, 0.9]])
    points = (points + [60, 30]) / [140, 150]
    whole = jax.jit(align_faces, static_argnames="size")
    want = whole(jnp.float32(photo[None]) / 127.5 - 1, points[None], size=SIZE)
    patch = cut_patch(photo, points, SPEC)
    assert patch.pixels.shape == (patch_side(SIZE),) * 2 + (3,)
    got = align(photo, points, SPEC)
    assert got.image.dtype == np.float32
    np.testing.assert_allclose(got.image, want.images[0], atol=1e-4)
    np.testing.assert_allclose(got.keypoints, want.keypoints[0], atol=1e-5)


def test_a_large_face_is_shrunk_without_aliasing(rng):
    """Fine stripes become gray, and a smooth face stays what it is."""
    stripes = np.zeros((1200, 1200, 3), np.uint8)
    stripes[:, ::2] = 255
    smooth = smooth_photo(rng, 1200, 1200)
    template = face_template(SIZE) / SIZE[0]
    for photo in (stripes, smooth):
        face = align(photo, template, SPEC)
        want = np.asarray(Image.fromarray(photo).resize(SIZE, Image.Resampling.BOX))
        inner = np.s_[1:-1, 1:-1]
        error = np.abs(to_bytes(face.image)[inner].astype(int) - want[inner])
        assert error.max() < 8
        np.testing.assert_allclose(face.keypoints, template, atol=1e-3)


@pytest.mark.parametrize("count", [0, 1, 3, 35])
def test_many_faces_are_those_of_one_at_a_time(count, rng):
    photo = smooth_photo(rng, 60, 50)
    points = POINTS + rng.normal(size=(count, 5, 2)).astype(np.float32) / 50
    faces = align_patches([cut_patch(photo, p, SPEC) for p in points], SPEC)
    assert len(faces) == count
    for face, p in list(zip(faces, points, strict=True))[-2:]:
        want = align(photo, p, SPEC)
        np.testing.assert_allclose(face.image, want.image, atol=1e-5)
        np.testing.assert_array_equal(face.keypoints, want.keypoints)


def test_a_crop_is_the_square_around_the_box(rng):
    spec = InputSpec((40, 40), framing="crop")
    photo = rng.integers(0, 256, (100, 200, 3)).astype(np.uint8)
    box = np.float32([0.3, 0.2, 0.5, 0.5])  # 40 x 30 pixels around (80, 35)
    face = align(photo, POINTS, spec, box=box)
    np.testing.assert_array_equal(to_bytes(face.image), photo[15:55, 60:100])
    want = (POINTS * [200, 100] - [60, 15]) / 40
    np.testing.assert_allclose(face.keypoints, want, atol=1e-6)
    with pytest.raises(NoFaceError, match="the box of its face is empty"):
        align(photo, POINTS, spec, box=np.zeros(4))
    with pytest.raises(ValueError, match="by the box of a detector; got keypoints"):
        align(photo, POINTS, spec)


def test_a_whole_photo_keeps_its_proportions(rng):
    spec = InputSpec((40, 60), framing="none")
    photo = rng.integers(0, 256, (40, 30, 3)).astype(np.uint8)
    face = align(photo, POINTS, spec)
    image = to_bytes(face.image)
    np.testing.assert_array_equal(image[:, 15:45], photo)
    assert not image[:, :15].any()
    assert not image[:, 45:].any()
    want = (POINTS * [30, 40] + [15, 0]) / [60, 40]
    np.testing.assert_allclose(face.keypoints, want, atol=1e-6)


@pytest.mark.parametrize(
    ("points", "reason"),
    [
        (np.full((5, 2), 0.5), "within one pixel"),
        (POINTS * [np.nan, 1], "not finite"),
        (POINTS + 1, "outside the photo"),
        (POINTS * [-1, 1] + [1, 0], "not arranged as in a face"),  # mirrored
    ],
)
def test_degenerate_points_are_no_face(points, reason, rng):
    photo = smooth_photo(rng, 50, 60)
    with pytest.raises(NoFaceError, match=reason):
        align(photo, np.float32(points), SPEC)


@pytest.mark.parametrize("turn", [0.3, 1.57, 3.1])
def test_turned_profiles_and_faces_at_the_edge_are_faces(turn, rng):
    photo = smooth_photo(rng, 200, 200)
    profile = (POINTS - 0.5) * [0.1, 1]  # all points nearly in one column
    c, s = np.cos(turn), np.sin(turn)
    points = profile @ np.array([[c, s], [-s, c]]) + [0.95, 0.5]
    face = align(photo, np.float32(points), SPEC)
    assert np.isfinite(face.image).all()
    assert np.abs(face.keypoints - face_template(SIZE) / 32).max() < 0.25


def test_other_numbers_of_keypoints_are_refused(rng):
    with pytest.raises(ValueError, match=r"must be \[5, 2\] .* got \(4, 2\)"):
        align(smooth_photo(rng, 50, 60), POINTS[:4], SPEC)
