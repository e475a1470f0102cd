"""What was detected is questioned, and photos that lie are turned."""

import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.detection.detections import Detections
from kprpe_jax.detection.detector import Detector
from kprpe_jax.detection.find_faces import (
    DOUBTFUL,
    NO_FACE,
    find_faces,
    upright_boxes,
    upright_points,
)
from tests.detection.color_faces import COLORS, color_detector, face_photo, see


@pytest.mark.parametrize("turns", range(4))
def test_a_face_is_found_in_any_turn(turns):
    photo = face_photo(turns=turns)
    (found,) = find_faces(color_detector(), [("a", photo)], batch_size=4)
    assert (found.turns, found.reasons, found.notes) == ((4 - turns) % 4, [], [])
    np.testing.assert_array_equal(found.photo, face_photo())
    points = upright_points(found.keypoints[0], found.turns) * photo.shape[1::-1]
    for color, point in zip(COLORS, points, strict=True):
        x, y = point.astype(int)
        np.testing.assert_array_equal(photo[y, x], color)
    left, top, right, bottom = upright_boxes(found.boxes, found.turns)[0]
    scaled = points / photo.shape[1::-1]
    assert ((scaled > [left, top]) & (scaled < [right, bottom])).all()


def test_order_and_names_are_kept_and_few_shapes_are_compiled():
    seen = []
    photos = [(str(n), face_photo(turns=n % 3)) for n in range(21)]
    photos[5] = ("5", np.zeros((90, 120, 3), np.uint8))
    found = list(find_faces(color_detector(seen=seen), photos, batch_size=4))
    assert [x.name for x in found] == [name for name, _ in photos]
    assert [x.turns for x in found] == [
        0 if n == 5 else -n % 3 and (4 - n % 3) for n in range(21)
    ]
    assert found[5].reasons == [NO_FACE]
    assert len(set(seen)) <= 4


@pytest.mark.parametrize(
    "again",
    [
        lambda points: None,
        lambda points: points + 0.11,
        lambda points: points[[1, 0, 2, 4, 3]],
    ],
)
def test_what_a_second_look_does_not_confirm_is_no_face(again):
    def see_otherwise(image):
        points, score = see(image)
        if points is not None and len(image) == 112:
            points = again(points)
        return points, 0.0 if points is None else score

    detector = color_detector(see_otherwise)
    (found,) = find_faces(detector, [("a", face_photo())], batch_size=4)
    assert found.reasons == [DOUBTFUL]
    assert len(found.keypoints) == len(found.boxes) == len(found.scores) == 0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda points: points * np.nan, "are not finite"),
        (lambda points: points * 0 + 0.5, "lie within one pixel"),
        (lambda points: points + 2, "lie outside the photo"),
        (lambda points: points * [-1, 1] + [1, 0], "are not arranged as in a face"),
        (lambda points: points[[2, 0, 1, 3, 4]], "are not arranged as in a face"),
    ],
)
def test_points_of_no_face(change, reason):
    def see_badly(image):
        points, score = see(image)
        return (None, 0.0) if points is None else (change(points), score)

    (found,) = find_faces(
        color_detector(see_badly), [("a", face_photo())], batch_size=4
    )
    assert len(found.reasons) == 1
    assert found.reasons[0].endswith(reason)


@pytest.mark.parametrize("count", [1, None])
def test_the_next_face_does_not_take_the_place_of_the_first(count):
    def detect(images):
        good, _ = see(np.asarray(images)[0])
        good = np.full((5, 2), 0.5) if good is None else good
        points = np.stack([good[[2, 0, 1, 3, 4]], good])
        boxes = np.concatenate([points.min(1), points.max(1)], -1)
        scores = np.float32([0.9, 0.8])
        fields = boxes, points, scores, scores > 0
        return Detections(*(jnp.asarray(x[None]) for x in fields))

    detector = Detector("two", detect, (128,), enlarge=False)
    photo = face_photo(100, 100)
    options = dict(batch_size=1, order="score", count=count)
    (found,) = find_faces(detector, [("a", photo)], **options)
    assert len(found.reasons) == 1
    assert found.scores.tolist() == ([] if count else [np.float32(0.8)])


def test_a_second_face_of_similar_size_is_noted():
    def detect(images):
        batch = len(images)
        points, _ = see(np.asarray(images)[0])
        points = np.stack([points, points * 0.9, points * 0.5])
        boxes = np.concatenate([points.min(1), points.max(1)], -1)
        fields = boxes, points, np.float32([0.9, 0.8, 0.7]), np.ones(3, bool)
        return Detections(*(jnp.asarray(np.stack([x] * batch)) for x in fields))

    detector = Detector("three", detect, (128,), enlarge=False)
    options = dict(batch_size=1, order="score")
    crowd = "a crowd: 3 faces were detected, others may not be"
    for count, most, notes in (
        (1, 2, ["1 further face of similar size"]),
        (None, 0, []),
        (None, 4, []),
        (None, 3, [crowd]),
    ):
        limited = detector._replace(max_faces=most)
        found = find_faces(limited, [("a", face_photo())], count=count, **options)
        assert next(found).notes == notes
