"""The aligned faces of photos, or the reasons why there is none."""

import numpy as np
import pytest

from kprpe_jax.alignment.photos import align
from kprpe_jax.core.input_spec import InputSpec, to_bytes
from kprpe_jax.detection.find_faces import NO_FACE
from kprpe_jax.detection.photo_faces import read_faces
from kprpe_jax.geometry.template import face_template
from tests.detection.color_faces import COLORS, color_detector, face_photo
from tests.detection.stand_in import POINTS, SIZE, bright_photo, stand_in

SPEC = InputSpec(SIZE)


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_every_photo_has_faces_or_reasons_and_its_place(batch_size, rng):
    photos = [
        ("bad", "it is broken"),
        ("a", bright_photo(rng, 60, 50)),
        ("dark", np.zeros((120, 90, 3), np.uint8)),
        ("worse", "it is gone"),
        ("b", bright_photo(rng, 100, 100)),
        ("c", bright_photo(rng, 64, 64)),
        ("worst", "it never was"),
    ]
    results = list(
        read_faces(photos, SPEC, stand_in(), faces="largest", batch_size=batch_size)
    )
    assert [r.name for r in results] == [name for name, _ in photos]
    reasons = [[p] if isinstance(p, str) else [] for _, p in photos]
    reasons[2] = [NO_FACE]
    assert [r.reasons for r in results] == reasons
    for result, (_, photo) in zip(results, photos, strict=True):
        if isinstance(photo, str):
            assert result.photo is None
            continue
        assert result.photo is photo
        assert len(result.faces) == (result.reasons == [])
        for face, keypoints in zip(result.faces, result.keypoints, strict=True):
            want = align(photo, keypoints, SPEC)
            np.testing.assert_allclose(face.image, want.image, atol=1e-5)


def test_the_faces_asked_for(rng):
    photos = [("a", bright_photo(rng, 64, 64))]
    scores = {
        faces: next(read_faces(photos, SPEC, stand_in(), faces=faces)).scores.tolist()
        for faces in ("center", "largest", "all")
    }
    assert {k: len(v) for k, v in scores.items()} == dict(center=1, largest=1, all=2)
    assert scores["largest"] == [np.float32(0.8)]
    assert sorted(scores["all"]) == sorted(np.float32([0.8, 0.9]).tolist())
    with pytest.raises(ValueError, match="one of center, largest, all; got 'best'"):
        next(read_faces(photos, SPEC, stand_in(), faces="best"))


def test_a_face_that_cannot_be_aligned_leaves_the_others(rng):
    photos = [("a", bright_photo(rng, 64, 64))]
    flat = np.full((5, 2), 0.5, np.float32)
    (result,) = read_faces(photos, SPEC, stand_in(other=flat), faces="all")
    np.testing.assert_allclose(result.keypoints, POINTS[None], atol=1e-6)
    assert len(result.faces) == len(result.boxes) == len(result.scores) == 1
    assert result.reasons == ["the keypoints of its face lie within one pixel"]


def test_photos_that_are_aligned_already(rng):
    wide = rng.integers(0, 256, (32, 36, 3)).astype(np.uint8)
    photos = [("a", wide), ("b", wide[:, :35]), ("c", "it is broken")]
    first, second, third = read_faces(photos, SPEC)
    np.testing.assert_allclose(
        first.faces[0].image, wide[:, 2:34] / 127.5 - 1, atol=1e-6
    )
    np.testing.assert_allclose(first.faces[0].keypoints, face_template(SIZE) / 32)
    np.testing.assert_allclose(
        first.keypoints[0], (face_template(SIZE) + [2, 0]) / [36, 32], rtol=1e-6
    )
    assert first.boxes.tolist() == [[0, 0, 1, 1]]
    assert (
        "aligned face of 32 x 32 pixels; got 32 x 35; give --det" in second.reasons[0]
    )
    assert second.photo is not None
    assert not second.faces
    assert third.photo is None
    assert third.reasons == ["it is broken"]


def test_a_turned_photo_is_told_in_its_own_fractions():
    photo = face_photo(turns=1)
    (found,) = read_faces([("a", photo)], SPEC, color_detector())
    (upright,) = read_faces([("a", face_photo())], SPEC, color_detector())
    assert (found.notes, upright.notes) == (["turned by 270 degrees"], [])
    assert found.photo.shape == photo.shape
    np.testing.assert_array_equal(found.photo, photo)
    np.testing.assert_allclose(found.faces[0].image, upright.faces[0].image, atol=1e-5)
    x, y = np.moveaxis(upright.keypoints, -1, 0)
    np.testing.assert_allclose(found.keypoints, np.stack([y, 1 - x], -1), atol=1e-6)
    left, top, right, bottom = upright.boxes[0]
    np.testing.assert_allclose(
        found.boxes, [[top, 1 - right, bottom, 1 - left]], atol=1e-6
    )


@pytest.mark.parametrize("framing", ["crop", "none"])
def test_keypoints_go_along_in_every_framing(framing):
    spec = InputSpec(SIZE, framing=framing, num_keypoints=5)
    for turns in (0, 2):
        photos = [("a", face_photo(turns=turns))]
        (found,) = read_faces(photos, spec, color_detector())
        (face,) = found.faces
        for color, (x, y) in zip(COLORS, face.keypoints * SIZE[::-1], strict=True):
            seen = to_bytes(face.image)[int(y), int(x)]
            assert np.abs(seen.astype(int) - color).max() < 90
    with pytest.raises(ValueError, match=f"--align {framing}: the network reads key"):
        next(read_faces(photos, spec))


def test_whole_photos_need_no_detector(rng):
    spec = InputSpec(SIZE, framing="none")
    photos = [("a", bright_photo(rng, 64, 48)), ("b", "it is broken")]
    first, second = read_faces(photos, spec)
    assert first.faces[0].image.shape == (*SIZE, 3)
    assert first.boxes.tolist() == [[0, 0, 1, 1]]
    assert second.reasons == ["it is broken"]
    with pytest.raises(ValueError, match="--faces all: --align none shows"):
        next(read_faces(photos, spec, faces="all"))
