"""Photos of any sizes through a detector that always gives the same faces."""

import numpy as np
import pytest

from kprpe_jax.detection.detector import retinaface_detector
from kprpe_jax.detection.photos import detect_photos
from tests.detection.stand_in import BOXES, POINTS, smooth_photo, stand_in


@pytest.mark.parametrize(
    ("shape", "canvas"),
    [((40, 60), 64), ((90, 128), 128), ((512, 384), 128), ((3, 3), 64)],
)
def test_points_return_to_the_photo_from_the_middle_of_its_canvas(shape, canvas, rng):
    seen = []
    photo = smooth_photo(rng, *shape)
    photos = [("a", photo), ("b", photo)]
    found, _ = detect_photos(stand_in(seen=seen), photos, batch_size=2, order="largest")
    assert seen == [(2, canvas, canvas, 3)]
    scale = min(1, canvas / max(shape))
    size = np.round(np.array(shape[::-1]) * scale)
    want = (POINTS * canvas - (canvas - size) // 2) / size
    np.testing.assert_allclose(found.keypoints[0], want, rtol=1e-5)  # largest first
    want = (BOXES[1].reshape(2, 2) * canvas - (canvas - size) // 2) / size
    np.testing.assert_allclose(found.boxes[0], want.ravel(), rtol=1e-5)
    np.testing.assert_allclose(found.scores, [0.8, 0.9])


def test_small_photos_are_enlarged_for_the_aligner(rng):
    detector = stand_in(canvases=(64,), enlarge=True)
    photo = smooth_photo(rng, 8, 16)
    (found,) = detect_photos(detector, [("a", photo)], batch_size=1, order="largest")
    want = (POINTS * 64 - [0, 16]) / [64, 32]
    np.testing.assert_allclose(found.keypoints[0], want, rtol=1e-5)


@pytest.mark.parametrize("pending", [1, 20_000, 1 << 26])
def test_every_photo_comes_once_and_in_order(pending, rng, monkeypatch):
    monkeypatch.setattr("kprpe_jax.detection.photos._MAX_PENDING", pending)
    photos = [(str(i), smooth_photo(rng, *rng.integers(20, 130, 2))) for i in range(11)]
    found = list(detect_photos(stand_in(), photos, batch_size=4))
    assert [f.name for f in found] == [name for name, _ in photos]
    for row in found:
        assert row.photo is dict(photos)[row.name]
    assert not list(detect_photos(stand_in(), [], batch_size=4))


def test_batches_of_few_photos_are_small_and_of_many_alike(rng):
    seen = []
    photos = [("a", smooth_photo(rng, 20, 20))] * 11
    list(detect_photos(stand_in(seen=seen), photos[:1], batch_size=4))
    list(detect_photos(stand_in(seen=seen), photos[:3], batch_size=8))
    list(detect_photos(stand_in(seen=seen), photos, batch_size=5))
    assert [shape[0] for shape in seen] == [1, 4, 5, 5, 5]


@pytest.mark.parametrize(
    ("order", "scores"), [("center", [0.8, 0.9]), ("largest", [0.8, 0.9]),
                          ("score", [0.9, 0.8])],
)  # fmt: skip
def test_faces_in_the_order_asked_for(order, scores, rng):
    photos = [("a", smooth_photo(rng, 64, 64)), ("b", np.zeros((64, 30, 3), np.uint8))]
    # Distances of the boxes' centers from the middle: 0.05 and 0.05 in a square.
    moved = stand_in()._replace(
        detect=lambda x: stand_in().detect(x)._replace(
            boxes=np.tile(np.float32([[0.45, 0.4, 0.55, 0.5], BOXES[1]]), (2, 1, 1))
        )
    )  # fmt: skip
    found, empty = detect_photos(moved, photos, batch_size=2, order=order)
    np.testing.assert_allclose(found.scores, scores)
    assert len(empty.scores) == 0
    assert empty.keypoints.shape == (0, 5, 2)
    assert empty.boxes.shape == (0, 4)


@pytest.mark.parametrize(
    ("other", "first"),
    [
        ([0.0, 0.0, 0.6, 0.6], 0.8),  # larger, at the edge
        ([0.48, 0.48, 0.52, 0.52], 0.8),  # small, in the very middle
        ([0.25, 0.25, 0.75, 0.75], 0.9),  # as central, and larger
    ],
)
def test_the_face_at_the_center_is_large_and_near_the_middle(other, first, rng):
    boxes = np.float32([[other, [0.35, 0.3, 0.75, 0.7]]])
    fixed = stand_in()._replace(
        detect=lambda x: stand_in().detect(x)._replace(boxes=boxes)
    )
    (found,) = detect_photos(fixed, [("a", smooth_photo(rng, 64, 64))], batch_size=1)
    assert found.scores[0] == np.float32(first)


def test_faults_are_one_sentence():
    with pytest.raises(ValueError, match="at least 32 pixels; got 8"):
        retinaface_detector(None, None, max_faces=1, min_score=0.5, max_side=8)
    with pytest.raises(ValueError, match="one of center, largest, score; got 'best'"):
        list(detect_photos(stand_in(), [], batch_size=1, order="best"))
