"""Photos cut as they are read, against the compiled aligner and by hand."""

import numpy as np
import pytest

from kprpe_jax.alignment.align import align_faces
from kprpe_jax.data.aligned_faces import detection_matrix
from kprpe_jax.data.faces import FaceRows
from kprpe_jax.geometry.point_fits import fit_similarity, similarity_matrix
from kprpe_jax.geometry.template import face_template
from tests.data.importers.sources import encode

SIZE = (56, 48)


def row(height, width, points, *, known=True, label=4):
    """A photo with a smooth pattern, as an import keeps it."""
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(x / 9), np.cos(y / 7), np.sin((x + y) / 11)], -1)
    return {
        "image": np.array(encode((127.5 * (waves + 1)).astype(np.uint8), "PNG")),
        "label": np.int32(label),
        "key": np.array(b"a"),
        "keypoints": np.float32(points) / np.float32([width, height]),
        "has_keypoints": np.bool_(known),
    }


class Rows(list):
    def __getitems__(self, rows):
        return [self[row] for row in rows]


@pytest.fixture
def points(rng):
    """Five points of a face that is turned, small, and off the middle."""
    angle, scale = 0.4, 1.7
    turn = scale * np.array(
        [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    )
    return face_template(SIZE) @ turn.T + [30, 20] + rng.normal(0, 1, (5, 2))


def test_matrices_on_the_host(points):
    want = fit_similarity(np.float32(points), face_template(SIZE))
    np.testing.assert_allclose(
        similarity_matrix(points, face_template(SIZE)), want, atol=2e-4
    )
    same = np.tile(points[:1], (5, 1))
    moved = similarity_matrix(same, face_template(SIZE))
    np.testing.assert_allclose(moved[:, :2], np.eye(2))
    np.testing.assert_allclose(same[0] + moved[:, 2], face_template(SIZE).mean(0))

    square = np.array([[10.0, 20], [30, 20], [10, 60], [30, 60], [20, 40]])
    matrix = detection_matrix(square, (100, 80), padding=0.5)
    corners = square @ matrix[:, :2].T + matrix[:, 2]
    # The box is 40 high, half of the shorter side, 80, and around the middle.
    np.testing.assert_allclose(
        corners, [[30, 30], [50, 30], [30, 70], [50, 70], [40, 50]]
    )
    assert np.isfinite(detection_matrix(np.ones((5, 2)), SIZE)).all()


def test_the_aligned_end_is_what_the_compiled_aligner_gives(points):
    photo = row(150, 140, points)
    faces = FaceRows(Rows([photo]), image_size=SIZE, first_label=1, share=1.0)
    got = faces[0]
    pixels = np.float32(FaceRows(Rows([photo]), image_size=(150, 140))[0]["image"])
    want = align_faces(pixels[None] / 127.5 - 1, photo["keypoints"][None], size=SIZE)
    assert got["image"].dtype == np.uint8
    inside = np.s_[4:-4, 4:-4]  # at the photo's end the two fade differently
    np.testing.assert_allclose(
        got["image"][inside] / 127.5 - 1, want.images[0][inside], atol=0.02
    )
    np.testing.assert_allclose(got["keypoints"], want.keypoints[0], atol=1e-5)
    assert (got["label"], got["id"], got["has_keypoints"]) == (3, 0, True)


def test_steps_between_move_the_points_evenly(points):
    """The map is the mean of its ends, so that points move on straight lines."""
    rows = Rows([row(150, 140, points), row(90, 200, points * 0.5)])
    ends = [FaceRows(rows, image_size=SIZE, share=s) for s in (0.0, 1.0)]
    part = FaceRows(rows, image_size=SIZE).cut(0.25).select(np.array([1, 0]))
    assert len(part) == 2
    for place, number in enumerate((1, 0)):
        low, high = (end[number]["keypoints"] for end in ends)
        np.testing.assert_allclose(
            part[place]["keypoints"], 0.75 * low + 0.25 * high, atol=1e-6
        )
        assert part[place]["image"].shape == (*SIZE, 3)
    # Upright and in the middle where it was detected.
    low = ends[0][0]["keypoints"]
    np.testing.assert_allclose(low.max(0) + low.min(0), 1, atol=1e-5)


def test_a_photo_without_keypoints_is_named(points):
    rows = Rows([row(150, 140, points), row(150, 140, points, known=False)])
    faces = FaceRows(rows, image_size=SIZE, share=1.0)
    with pytest.raises(ValueError, match=r"none in row 1 \(key 'a'\); import .*--land"):
        faces[1]
