"""Prepared data sets on disk: reuse, absence, damage, a killed preparation."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from ml_collections import ConfigDict

from kprpe_jax import registry
from kprpe_jax.data import store
from kprpe_jax.data.prepare import prepare
from kprpe_jax.data.rows import read_all
from kprpe_jax.training.loop import prepare_data

SHARD = "digits/1.0.0/digits-test.array_record-00000-of-00001"


@pytest.fixture
def copied(digits_dir, tmp_path):
    """A copy of the prepared digits that a test may damage."""
    return shutil.copytree(digits_dir, tmp_path / "copy")


def test_prepare_reuses_what_is_there(tmp_path):
    path = prepare("again", tmp_path, builder="digits")
    before = [p.stat().st_mtime_ns for p in sorted((tmp_path / "again").rglob("*"))]
    assert prepare("again", tmp_path, builder="digits") == path
    after = [p.stat().st_mtime_ns for p in sorted((tmp_path / "again").rglob("*"))]
    assert before == after
    assert len(store.open_split(tmp_path, "again", "test")) == 360


@pytest.mark.parametrize(
    ("name", "builder_args", "match"),
    [
        (
            "digit",
            {},
            r"'digits', 'synthetic_faces', .*; got 'digit'; did you mean 'digits'",
        ),
        ("digits", {"idx_dir": "x"}, r"must be of \[\]; got \['idx_dir'\]"),
    ],
)
def test_prepare_refuses_what_it_does_not_know(tmp_path, name, builder_args, match):
    with pytest.raises(ValueError, match=match):
        prepare(name, tmp_path, **builder_args)
    assert not list(tmp_path.iterdir())


class Squares(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A data set of one file: number and square."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, count=3, **kwargs):
        self._count = count
        super().__init__(**kwargs)

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict({"square": np.int32, "id": np.int32}),
            metadata=tfds.core.MetadataDict(count=self._count),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for i in range(self._count):
            yield i, {"square": i * i, "id": i}


def test_a_data_set_is_one_builder_and_one_line_of_the_registry(tmp_path, monkeypatch):
    monkeypatch.setitem(registry.DATA_SETS, "squares", f"{__name__}:Squares")
    data = {"name": "squares", "dir": str(tmp_path), "builder": {"count": 5}}
    prepare_data(ConfigDict({"data": data}))
    rows = store.open_split(tmp_path, "squares", "train")
    assert [int(row["square"]) for row in rows] == [0, 1, 4, 9, 16]
    with pytest.raises(ValueError, match=r"made from \{'count': 3\}; it was from"):
        prepare("squares", tmp_path, count=3)
    with pytest.raises(ValueError, match=r"must be of \['count'\]; got \['size'\]"):
        prepare("squares", tmp_path, size=3)


def test_absent_sets_and_splits_are_named(digits_dir, tmp_path):
    with pytest.raises(ValueError, match=r"is empty or does not exist; make it with"):
        store.open_split(tmp_path, "digits", "train")
    with pytest.raises(ValueError, match=r"holds \['digits'\]; did you mean 'digits'"):
        store.open_split(digits_dir, "digit", "train")
    with pytest.raises(ValueError, match=r"one of \['test', 'train'\].*got 'val'"):
        store.open_split(digits_dir, "digits", "val")
    with pytest.raises(ValueError, match="at least one row; got none"):
        store.open_split(digits_dir, "digits", "train[:0]")


def test_slices_and_rows(digits_dir):
    source = store.open_split(digits_dir, "digits", "train[10:20]")
    assert len(source) == 10
    assert int(source[0]["id"]) == 10
    assert [int(r["id"]) for r in source.__getitems__([3, 0, 3])] == [13, 10, 13]
    assert [int(r["id"]) for r in source] == list(range(10, 20))


def test_in_memory_has_the_same_rows(digits_dir):
    source = store.open_split(digits_dir, "digits", "test")
    copy = read_all(source)
    assert len(copy) == len(source)
    for row in (0, 7, 359):
        for key, value in source[row].items():
            np.testing.assert_array_equal(copy[row][key], value)
            assert copy[row][key].dtype == value.dtype


@pytest.mark.parametrize("part", [0.0, 0.3, 0.6, 0.99])
def test_truncated_shard_is_named_when_opened(copied, part):
    content = (copied / SHARD).read_bytes()
    (copied / SHARD).write_bytes(content[: int(len(content) * part)])
    with pytest.raises(ValueError, match=f"{SHARD} is truncated or corrupt") as e:
        store.open_split(copied, "digits", "test")
    assert "\n" not in str(e.value)
    assert len(store.open_split(copied, "digits", "train")) == 1437


def test_missing_shard_and_shard_of_another_split_are_named(copied):
    shutil.copy(copied / SHARD.replace("test", "train"), copied / SHARD)
    with pytest.raises(ValueError, match=f"{SHARD} must hold 360 rows; got 1437"):
        store.open_split(copied, "digits", "test")
    (copied / SHARD).unlink()
    with pytest.raises(ValueError, match=f"{SHARD} is missing"):
        store.open_split(copied, "digits", "test")


def test_flipped_byte_is_named_when_its_row_is_read(copied):
    content = bytearray((copied / SHARD).read_bytes())
    content[10_000] ^= 0xFF  # in the middle of some early row's record
    (copied / SHARD).write_bytes(content)
    source = store.open_split(copied, "digits", "test")
    with pytest.raises(ValueError, match=rf"{SHARD} is corrupt at row \d+ of") as e:
        source.__getitems__(range(360))
    assert "\n" not in str(e.value)
    assert int(source[359]["id"]) == 359  # other rows can still be read


def test_damage_is_put_down_to_the_right_one_of_several_shards(copied):
    content = bytearray((copied / SHARD).read_bytes())
    content[100:1000] = bytes(900)  # the first rows' records
    (copied / SHARD).write_bytes(content)
    source = store.open_split(copied, "digits", "train[:5]+test")
    assert [int(source[i]["id"]) for i in range(5)] == list(range(5))
    with pytest.raises(ValueError, match=rf"{SHARD} is corrupt at row 5 of"):
        source[5]


@pytest.mark.parametrize("file", ["dataset_info.json", "features.json"])
def test_damaged_description_is_named(copied, file):
    (copied / "digits/1.0.0" / file).write_text("{")
    with pytest.raises(ValueError, match="digits/1.0.0 must hold TFDS's"):
        store.open_split(copied, "digits", "test")


KILLED = """
import os, signal, sys
from kprpe_jax.data import builders
from kprpe_jax.data.prepare import prepare

def rows(images, labels, complete=builders._rows):
    for i, row in enumerate(complete(images, labels)):
        if i == 300 and len(images) == 360:  # the second split, half written
            os.kill(os.getpid(), signal.SIGKILL)
        yield row

builders._rows = rows
prepare("digits", sys.argv[1])
"""


@pytest.mark.slow
def test_killed_preparation_leaves_nothing_that_looks_finished(tmp_path):
    run = subprocess.run([sys.executable, "-c", KILLED, tmp_path], check=False)
    assert run.returncode == -9
    assert list((tmp_path / "digits").glob("incomplete*"))
    with pytest.raises(ValueError, match="must hold a finished version"):
        store.open_split(tmp_path, "digits", "train")
    prepare("digits", tmp_path)
    assert len(store.open_split(tmp_path, "digits", "train")) == 1437
