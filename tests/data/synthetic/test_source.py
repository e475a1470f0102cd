"""Rows of synthetic faces for the loader, and stored as a TFDS data set."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from kprpe_jax.data import store
from kprpe_jax.data.faces import open_faces
from kprpe_jax.data.importers.decode import decode_rgb
from kprpe_jax.data.loader import train_batches
from kprpe_jax.data.order import shuffled
from kprpe_jax.data.prepare import prepare
from kprpe_jax.data.synthetic.source import FaceSource
from kprpe_jax.training.loop import prepare_data

SMALL = {"images_per_identity": 3, "size": 32}


@pytest.fixture(scope="module")
def source():
    return FaceSource(num_identities=4, **SMALL)


@pytest.mark.slow
def test_rows(source):
    assert len(source) == 12
    rows = source.__getitems__([7, 0, 7])
    assert [int(r["id"]) for r in rows] == [7, 0, 7]
    assert [int(r["label"]) for r in rows] == [2, 0, 2]
    for key, value in rows[0].items():
        np.testing.assert_array_equal(value, rows[2][key])
        np.testing.assert_array_equal(value, source[7][key])
    assert rows[0]["image"].shape == (32, 32, 3)
    assert rows[0]["landmarks"].shape == (84, 2)
    assert len(source.__getitems__(list(range(12)) * 4)) == 48  # more than a chunk
    with pytest.raises(IndexError, match=r"rows 12 \.\. 12 of 12"):
        source[12]


@pytest.mark.slow
def test_later_people_are_the_same_by_number(source):
    later = FaceSource(num_identities=2, first_identity=2, **SMALL)
    np.testing.assert_array_equal(later[1]["image"], source[7]["image"])
    assert int(later[1]["label"]) == 2  # no other person's label


@pytest.mark.slow
def test_loader_reads_them(source):
    rows = shuffled(len(source), seed=0)
    batch = next(train_batches(source, rows, batch_size=8))
    assert batch["image"].shape == (8, 32, 32, 3)
    np.testing.assert_array_equal(batch["label"], batch["id"] // 3)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"num_identities": 0}, r"at least 1.*got \(0, 3\)"),
        ({"difficulty": -1.0}, r"not negative.*-1\.0"),
        ({"layout": "fre"}, "one of .*; got 'fre'"),
    ],
)
def test_bad_arguments(change, match):
    with pytest.raises(ValueError, match=f"^FaceSource: .*{match}"):
        FaceSource(**{"num_identities": 2, **SMALL, **change})


@pytest.mark.slow
def test_stored_rows_are_the_rendered_ones(source, tmp_path):
    given = {"num_identities": 4, "num_test_identities": 2, **SMALL}
    prepare("synthetic_faces", tmp_path, **given)
    train = store.open_split(tmp_path, "synthetic_faces", "train")
    assert len(train) == 12
    test = store.open_split(tmp_path, "synthetic_faces", "test")
    assert [int(row["label"]) for row in test] == [4, 4, 4, 5, 5, 5]
    for number in (0, 7, 11):
        row, rendered = train[number], source[number]
        image = decode_rgb(row["image"].item())
        assert np.abs(image.astype(int) - rendered["image"]).mean() < 4  # JPEG
        for key in ("keypoints", "landmarks", "label", "quality"):
            np.testing.assert_array_equal(row[key], rendered[key])
        assert bool(row["has_keypoints"])
    faces = open_faces(tmp_path, "synthetic_faces", "train", image_size=(32, 32))
    np.testing.assert_array_equal(faces[7]["keypoints"], source[7]["keypoints"])
    prepare("synthetic_faces", tmp_path, **given)  # nothing to do
    with pytest.raises(ValueError, match=r"made from \{'num_identities': 5\}; it was"):
        prepare("synthetic_faces", tmp_path, num_identities=5)


@pytest.mark.slow
def test_a_config_says_what_is_rendered(tmp_path):
    builder = {"num_identities": 2, "num_test_identities": 1, **SMALL}
    config = ConfigDict(
        {"data": {"name": "synthetic_faces", "dir": str(tmp_path), "builder": builder}}
    )
    prepare_data(config)
    assert len(store.open_split(tmp_path, "synthetic_faces", "train")) == 6
    prepare_data(config)
    config.data.builder.num_identities = 3
    with pytest.raises(
        ValueError, match=r"from \{.*'num_identities': 3.*; it was from"
    ):
        prepare_data(config)
