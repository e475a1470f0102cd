"""Imports with pairs, by the command, and what opens of them."""

import shutil
from contextlib import nullcontext

import numpy as np
import pytest

from kprpe_jax.data.pair_sets import open_pair_set
from tests.commands.run_import import run_import
from tests.data.importers.sources import SHARED, face, needs_shared

PAIRS = """2\t1
Ann\t1\t2
Ann\t1\tBob\t3
Bob\t3\t1
Bob\t1\tAnn\t2
"""
KEYS = ("Bob/Bob_0001.jpg", "Ann/Ann_0001.jpg", "Cid/Cid_0001.jpg", "Ann/Ann_0002.jpg",
        "Bob/Bob_0003.jpg")  # fmt: skip


def import_folder(tmp_path, keys=KEYS, pair_list=PAIRS):
    for number, key in enumerate(keys):
        path = tmp_path / "in" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_bytes(face(number))
    (tmp_path / "pairs.txt").write_text(pair_list)
    source, pairs = str(tmp_path / "in"), str(tmp_path / "pairs.txt")
    run_import(tmp_path, "folder", source=source, pairs=pairs)


def size_of(tmp_path):
    with pytest.raises(ValueError, match=r"must be 1 x 1 pixels; got (\d+) x") as info:
        open_pair_set(tmp_path / "data", "faces", image_size=(1, 1)).faces[0]
    words = str(info.value).split("got ")[1].split()
    return int(words[0]), int(words[2])


def test_pairs_are_found_by_key_whatever_the_order(tmp_path):
    import_folder(tmp_path)
    pairs = open_pair_set(tmp_path / "data", "faces", image_size=size_of(tmp_path))
    keys = pairs.faces.keys()
    assert len(keys) == 4  # no pair names Cid
    named = [(keys[i], keys[j]) for i, j in zip(pairs.first, pairs.second, strict=True)]
    assert named == [
        ("Ann/Ann_0001.jpg", "Ann/Ann_0002.jpg"),
        ("Ann/Ann_0001.jpg", "Bob/Bob_0003.jpg"),
        ("Bob/Bob_0003.jpg", "Bob/Bob_0001.jpg"),
        ("Bob/Bob_0001.jpg", "Ann/Ann_0002.jpg"),
    ]
    assert pairs.same.tolist() == [True, False, True, False]
    assert pairs.num_folds == 2


def test_missing_images_and_data_sets_without_pairs_are_named(tmp_path):
    match = "faces must hold .*1 of 4 are missing, such as Bob/Bob_0001.jpg; it has"
    with pytest.raises(ValueError, match=f"--pairs: {match}.*; import the whole"):
        import_folder(tmp_path, KEYS[1:])
    assert not list((tmp_path / "data" / "faces").glob("*/tables.npz"))
    fitting = PAIRS.replace("Bob\t3\t1", "Ann\t2\t1").replace("Bob\t1", "Bob\t3")
    import_folder(tmp_path, KEYS[1:], fitting)  # goes on where the other list stopped
    shutil.rmtree(tmp_path / "data")
    import_folder(tmp_path)
    (tables,) = (tmp_path / "data" / "faces").glob("*/tables.npz")
    with np.load(tables) as arrays:
        keys = np.char.replace(arrays["pair_keys"].astype(str), "Bob", "Rob")
        np.savez(tables, **{**arrays, "pair_keys": keys})
    missing = "2 of 4 are missing, such as Rob/Rob_0001.jpg, Rob/Rob_0003.jpg; it has"
    with pytest.raises(ValueError, match=missing):
        open_pair_set(tmp_path / "data", "faces", image_size=(8, 8))
    (tmp_path / "other").mkdir()
    run_import(tmp_path / "other", "folder", source=str(tmp_path / "in"))
    with pytest.raises(ValueError, match="faces must hold pairs; got .* without"):
        open_pair_set(tmp_path / "other" / "data", "faces", image_size=(8, 8))


@pytest.mark.parametrize(("folds", "refused"), [(1, True), (2, False), (5, True)])
def test_folds_that_no_threshold_can_come_from(tmp_path, folds, refused):
    import_folder(tmp_path)
    (tables,) = (tmp_path / "data" / "faces").glob("*/tables.npz")
    with np.load(tables) as arrays:
        np.savez(tables, **{**arrays, "pair_folds": np.array(folds)})
    match = f"its 4 pairs in 2 .. 4 folds, for .* got {folds}; import"
    with pytest.raises(ValueError, match=match) if refused else nullcontext():
        open_pair_set(tmp_path / "data", "faces", image_size=(8, 8))


@needs_shared
def test_a_real_verification_set(tmp_path):
    path = SHARED / "insightface" / "small_lfw.bin"
    run_import(tmp_path, "insightface_bin", source=str(path), split="test")
    pairs = open_pair_set(tmp_path / "data", "faces", image_size=(112, 112))
    np.testing.assert_array_equal(pairs.first, np.arange(0, 20, 2))
    np.testing.assert_array_equal(pairs.second, np.arange(1, 20, 2))
    assert pairs.same.all()
