"""Data sets of features: rows of both splits, on disk and back."""

import numpy as np
import pytest

from kprpe_jax.data.features import (
    check_origin,
    choose_photos,
    collect,
    open_features,
    read_features,
    read_origin,
    write_features,
)

PHOTOS, COPIES = 5, 3
LABELS = np.array([4, 4, 7, 7, 7], np.int32)
ABOUT = {"recognizer": "tiny", "fingerprint": "f" * 64, "input_spec": "8 x 8, RGB"}


def sampled_rows(rng, copies, patches=False):
    rows = [
        {
            "embedding": rng.normal(size=2).astype(np.float32),
            "style": rng.normal(size=(2, 2)).astype(np.float32),
            "patches": rng.normal(size=(6, 3)).astype(np.float16),
            "label": LABELS[n // copies],
            "photo": np.int32(n // copies),
        }
        for n in range(PHOTOS * copies)
    ]
    left_out = "style" if patches else "patches"
    return [{k: v for k, v in row.items() if k != left_out} for row in rows]


def test_there_and_back(rng, tmp_path):
    parts = {"clean": sampled_rows(rng, 1), "degraded": sampled_rows(rng, COPIES)}
    options = dict(data_dir=tmp_path, shapes={"embedding": (2,), "style": (2, 2)})
    origin = {**ABOUT, "copies": COPIES}
    path = write_features(parts, name="some", origin=origin, **options)
    for split in ("clean", "degraded"):
        got, want = read_features(tmp_path, "some", split), collect(parts[split])
        np.testing.assert_array_equal(got.features.embeddings, want.features.embeddings)
        np.testing.assert_array_equal(got.features.style, want.features.style)
        assert got.features.patches is None
        np.testing.assert_array_equal(got.labels, want.labels)
        np.testing.assert_array_equal(got.photos, want.photos)
    chosen = read_features(tmp_path, "some", "clean", identities=(5, 8))
    np.testing.assert_array_equal(chosen.labels, [7, 7, 7])
    assert read_origin(tmp_path, "some") == origin
    with pytest.raises(ValueError, match="some labels of some must lie in 8 .. 9; got"):
        read_features(tmp_path, "some", "clean", identities=(8, 10))
    with pytest.raises(ValueError, match=f"{path} must not exist yet"):
        write_features(parts, name="some", origin=origin, **options)
    with pytest.raises(ValueError, match="must be small letters, digits and _"):
        write_features(parts, name="Some set", origin=origin, **options)
    with pytest.raises(ValueError, match="some must be features with patches; got"):
        open_features(tmp_path, "some", "clean", patches=True)


def test_patches_without_degraded_copies(rng, tmp_path):
    rows = sampled_rows(rng, 1, patches=True)
    shapes = {"embedding": (2,), "patches": (6, 3)}
    options = dict(name="p", data_dir=tmp_path, shapes=shapes, origin=ABOUT)
    write_features({"clean": iter(rows)}, **options)
    source = open_features(tmp_path, "p", "clean", patches=True)
    read = source.__getitems__(range(5))
    for got, want in zip(read, rows, strict=True):
        np.testing.assert_array_equal(got["patches"], want["patches"])
        np.testing.assert_array_equal(got["embedding"], want["embedding"])
    assert [int(row["id"]) for row in read] == list(range(5))
    options = dict(data_dir=tmp_path, name="p", split="clean")
    some = open_features(**options, identities=(7, 8))
    assert some.labels().tolist() == [0, 0, 0]
    np.testing.assert_array_equal(some[1]["patches"], rows[3]["patches"])
    assert some[1]["label"] == 0
    assert source.labels().tolist() == LABELS.tolist()
    with pytest.raises(ValueError, match=r"must lie in 1 .. 2; got 4 .. 7; change"):
        open_features(**options, identities=(1, 3))
    with pytest.raises(ValueError, match="the split must be one of"):
        open_features(tmp_path, "p", "degraded")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        (
            {"fingerprint": "e" * 64},
            r"of tiny \(weights f+\); got other \(weights e",
        ),
        ({"input_spec": "9 x 9"}, r"are of tiny \(contract 8 x 8, RGB\); got other \("),
    ],
)
def test_features_of_another_recognizer_are_refused(changes, match):
    check_origin(ABOUT, ABOUT, "some")
    check_origin({}, ABOUT, "some")  # of an older version: nothing is known
    with pytest.raises(ValueError, match=match) as error:
        check_origin(ABOUT, {**ABOUT, "recognizer": "other", **changes}, "some")
    assert "\n" not in str(error.value)


def test_photos_are_chosen_by_person():
    labels = np.array([3, 5, 3, -1, 5, 3, 9, -1])
    np.testing.assert_array_equal(choose_photos(labels), [0, 1, 2, 4, 5, 6])
    np.testing.assert_array_equal(
        choose_photos(labels, min_images=2, max_images=2), [0, 1, 2, 4]
    )
    assert not len(choose_photos(labels, min_images=4))
