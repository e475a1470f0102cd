"""Keypoints found by a network: a stand-in that detects bright spots."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.data import store
from kprpe_jax.data.importers.dataset import write_dataset
from kprpe_jax.data.importers.detect import with_detected
from kprpe_jax.data.importers.record import Record, RecordSource, RejectedRecord
from kprpe_jax.detection.detections import Detections
from kprpe_jax.detection.detector import Detector
from kprpe_jax.geometry.template import ARCFACE_112
from tests.data.importers.sources import encode

FACE = (ARCFACE_112 - ARCFACE_112.mean(0)) / 1000  # in fractions of the canvas
KNOWN = np.full((5, 2), 0.125, np.float32)


def detect_spot(images):
    """A small face in a corner, and a large one at the bright pixels, if any."""
    bright = (images.mean(-1) > 0.5).astype(jnp.float32)
    total = bright.sum((1, 2))
    place = jnp.arange(images.shape[1]) + 0.5
    x, y = (bright * place).sum((1, 2)), (bright * place[:, None]).sum((1, 2))
    middle = jnp.stack([x, y], -1) / jnp.maximum(total, 1)[:, None] / len(place)
    boxes = jnp.array([[0, 0, 0.1, 0.1], [0.2, 0.2, 0.9, 0.9]])
    points = jnp.stack([jnp.zeros_like(middle), middle], 1)
    batch = len(images)
    return Detections(
        jnp.tile(boxes, (batch, 1, 1)),
        points[:, :, None] + FACE,
        jnp.full((batch, 2), 0.9),
        jnp.tile((total > 0)[:, None], (1, 2)),
    )


DETECTOR = Detector("stand-in", jax.jit(detect_spot), (32, 64), enlarge=False)


def spot(x, y, height, width):
    """A dark JPEG, bright around (x, y)."""
    image = np.zeros((height, width, 3), np.uint8)
    image[y - 2 : y + 2, x - 2 : x + 2] = 255
    return encode(image, quality=100)


ENTRIES = [
    Record("0", spot(5, 9, 20, 16), "ann"),
    Record("1", encode(np.zeros((20, 16, 3), np.uint8)), "ann"),
    RejectedRecord("2", "missing image", "it is not there"),
    Record("3", spot(40, 9, 30, 50), "bob"),
    Record("4", spot(9, 9, 20, 20)[:-30], "bob"),
    Record("5", spot(9, 9, 20, 20), "bob", keypoints=KNOWN),
    Record("6", spot(12, 3, 16, 20), "cid"),
]


def detect(data_dir, *, wanted=lambda record: record.keypoints is None, stop=None,
           on_error="skip"):  # fmt: skip
    def read(start):
        for number, entry in enumerate(ENTRIES[start:], start):
            if number == stop:
                raise KeyboardInterrupt
            yield entry

    source = with_detected(
        RecordSource(read, state="s"), DETECTOR, wanted=wanted, batch_size=2
    )
    report = write_dataset(
        source,
        name="faces",
        data_dir=data_dir,
        origin={},
        on_error=on_error,
        shard_rows=2,
    )
    return list(store.open_split(data_dir, "faces", "train")), report


def test_points_in_fractions_of_photos_of_any_size(tmp_path):
    rows, report = detect(tmp_path)
    assert [row["key"].item() for row in rows] == [b"0", b"1", b"3", b"5", b"6"]
    want = [
        (5 / 16, 9 / 20),
        None,
        (40 / 50, 9 / 30),
        (0.125, 0.125),
        (12 / 20, 3 / 16),
    ]
    for row, point in zip(rows, want, strict=True):
        assert row["has_keypoints"] == (point is not None)
        middle = row["keypoints"].mean(0)
        np.testing.assert_allclose(middle, point or (0, 0), atol=0.02)
    assert report["keypoints_from"] == {"source": 1, "detector": 3}
    assert report["rows_without_keypoints"] == 1
    bad = report["bad"]
    assert bad["missing landmarks"]["entries"] == [
        ["1", "the detector finds no face in it"]
    ]
    assert set(bad) == {"missing landmarks", "missing image", "broken image"}


def test_all_images_or_those_without_keypoints(tmp_path):
    rows, report = detect(tmp_path, wanted=lambda record: True)
    np.testing.assert_allclose(rows[3]["keypoints"].mean(0), 9 / 20, atol=0.02)
    assert report["keypoints_from"] == {"detector": 4}


def test_no_face_is_fatal_by_default(tmp_path):
    with pytest.raises(ValueError, match="'1' with missing landmarks .the detector fi"):
        detect(tmp_path, on_error="fail")
    assert not (tmp_path / "faces").exists()


def test_stopped_and_gone_on(tmp_path, monkeypatch):
    monkeypatch.setattr("kprpe_jax.data.importers.detect._CHUNK", 2)
    monkeypatch.setattr("kprpe_jax.data.importers.check._CHUNK", 1)
    detect(tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        detect(tmp_path / "b", stop=6)
    assert not (tmp_path / "b/faces/1.0.0").exists()
    assert (tmp_path / "b/faces/incomplete.import/progress/00000.json").exists()
    detect(tmp_path / "b")
    for path in sorted((tmp_path / "a/faces/1.0.0").iterdir()):
        assert (
            tmp_path / "b/faces/1.0.0" / path.name
        ).read_bytes() == path.read_bytes()
