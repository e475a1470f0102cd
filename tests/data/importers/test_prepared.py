"""Data sets that are there already, written anew: only keypoints may change."""

import numpy as np
import pytest
import tensorflow_datasets as tfds

from kprpe_jax.data import store
from kprpe_jax.data.importers.dataset import write_dataset
from kprpe_jax.data.importers.landmarks import Landmarks
from kprpe_jax.data.importers.prepared import open_prepared
from kprpe_jax.data.importers.record import NO_IDENTITY, Record, RecordSource
from tests.data.importers.sources import face

POINTS = np.random.default_rng(0).random((5, 2), np.float32)
SHAPE = tfds.features.Tensor(shape=(3, 2), dtype=np.float32)
# A name that is a number, people out of order, one without identity.
IDENTITIES = ["7", "ann", "7", NO_IDENTITY, "bob"]


@pytest.fixture
def data_dir(tmp_path):
    entries = [
        Record(
            f"{i}.jpg",
            face(i),
            name,
            {"pair": i // 2, "part": "ä", "shape": np.full((3, 2), i, np.float32)},
            keypoints=POINTS * i if i < 2 else None,
        )
        for i, name in enumerate(IDENTITIES)
    ]
    source = RecordSource(
        lambda start: iter(entries[start:]),
        state="s",
        extra={"pair": int, "part": str, "shape": SHAPE},
        tables={"same": np.array([True, False])},
    )
    write_dataset(source, name="old", data_dir=tmp_path, origin={}, split="test")
    return tmp_path


def rewrite(data_dir, **options):
    report = write_dataset(
        open_prepared(data_dir / "old"), name="new", data_dir=data_dir,
        origin={}, **options,
    )  # fmt: skip
    return list(store.open_split(data_dir, "new", "train")), report


def test_everything_comes_back(data_dir):
    rows, report = rewrite(data_dir, shard_rows=2)
    old = store.open_split(data_dir, "old", "test")
    assert [int(row["label"]) for row in rows] == [0, 1, 0, -1, 2]
    for row, before in zip(rows, old, strict=True):
        assert row.keys() == before.keys()
        for name, value in before.items():
            np.testing.assert_array_equal(row[name], value, err_msg=name)
    assert report["keypoints_from"] == {"source": 2}
    assert report["rows_without_keypoints"] == 3
    with np.load(data_dir / "new/1.0.0/tables.npz") as tables:
        assert tables["same"].tolist() == [True, False]


def test_numbers_stay_labels(tmp_path):
    numbers = [5, 2, NO_IDENTITY]
    entries = [Record(str(i), face(i), n) for i, n in enumerate(numbers)]
    source = RecordSource(lambda start: iter(entries[start:]), state="s")
    write_dataset(source, name="old", data_dir=tmp_path, origin={})
    rows, report = rewrite(tmp_path)
    assert [int(row["label"]) for row in rows] == numbers
    assert [row["identity"].item() for row in rows] == [b"5", b"2", b""]
    assert report["num_classes"] == 6


def test_a_table_goes_before_what_is_stored(data_dir):
    table = Landmarks({"1.jpg": 0, "4.jpg": 1, "no": 2}, np.stack([POINTS / 2] * 3),
                      "fraction")  # fmt: skip
    rows, report = rewrite(data_dir, landmarks=table, on_error="skip")
    want = [POINTS * 0, POINTS / 2, None, None, POINTS / 2]
    for row, points in zip(rows, want, strict=True):
        assert row["has_keypoints"] == (points is not None)
        if points is not None:
            np.testing.assert_array_equal(row["keypoints"], points)
    assert report["keypoints_from"] == {"table": 2, "source": 1}
    assert report["unused_landmark_rows"] == 1
    assert report["bad"]["missing landmarks"]["count"] == 2


def test_a_table_of_other_points_takes_the_place_of_an_older_one(data_dir, rng):
    for name, count in (("dense", 17), ("denser", 68)):
        points = rng.uniform(0.2, 0.8, (1, count, 2)).astype(np.float32)
        table = Landmarks({"1.jpg": 0}, points, "fraction")
        options = dict(origin={}, landmarks=table, on_error="skip")
        source = open_prepared(data_dir / ("old" if count == 17 else "dense"))
        write_dataset(source, name=name, data_dir=data_dir, **options)
        row = store.open_split(data_dir, name, "train")[1]
        np.testing.assert_array_equal(row["landmarks"], points[0])
        assert row["landmark_mask"].all()
    source = open_prepared(data_dir / "denser")  # without a table they stay
    write_dataset(source, name="again", data_dir=data_dir, origin={})
    row = store.open_split(data_dir, "again", "train")[1]
    np.testing.assert_array_equal(row["landmarks"], points[0])


def test_what_is_not_there_or_no_faces(digits_dir, tmp_path):
    with pytest.raises(ValueError, match="one split .* got none; write .*digits:test"):
        open_prepared(digits_dir / "digits")
    with pytest.raises(ValueError, match="must be a data set of faces; got .*'image'"):
        open_prepared(f"{digits_dir}/digits:train")
    with pytest.raises(ValueError, match="nowhere must be a prepared data set"):
        open_prepared(tmp_path / "nowhere")
