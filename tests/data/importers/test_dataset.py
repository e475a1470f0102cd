"""What is written: rows, reports, stopped imports that go on, nothing half finished."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kprpe_jax.data import store
from kprpe_jax.data.importers import progress
from kprpe_jax.data.importers.dataset import write_dataset
from kprpe_jax.data.importers.landmarks import Landmarks
from kprpe_jax.data.importers.record import (
    NO_IDENTITY,
    Record,
    RecordSource,
    RejectedRecord,
)
from tests.data.importers.sources import encode, face

PEOPLE = ["bob", "ann", "bob", "cid", "dan", "ann", "eve"]
ENTRIES = [
    Record(f"{i}.jpg", face(i, 12, 8 + i), name) for i, name in enumerate(PEOPLE)
]
BROKEN = Record("broken.jpg", face(0)[:-40], "zoe")
MISSING = RejectedRecord("gone.jpg", "missing image", "it is not there")


def source_of(entries, stop=None, **fields) -> RecordSource:
    """A source that ends, or breaks off with an error at an entry's number."""

    def read(start):
        for number in range(start, len(entries)):
            if number == stop:
                raise KeyboardInterrupt
            yield entries[number]

    return RecordSource(read, state="s", **fields)


def write(entries, data_dir, **options):
    fields = {k: options.pop(k) for k in ("stop", "extra", "tables") if k in options}
    options = {"name": "faces", "origin": {"kind": "test"}, "shard_rows": 2} | options
    return write_dataset(source_of(entries, **fields), data_dir=data_dir, **options)


def files(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_rows_keep_bytes_order_and_identity(tmp_path):
    report = write(ENTRIES, tmp_path)
    rows = store.open_split(tmp_path, "faces", "train")
    assert len(rows) == 7
    for row, entry in zip(rows, ENTRIES, strict=True):
        assert row["image"].item() == entry.image
        assert row["key"].item().decode() == entry.key
        assert row["identity"].item().decode() == entry.identity
        assert row["keypoints"].dtype == np.float32
        assert not row["keypoints"].any()
        assert not row["has_keypoints"]
        assert row["label"].dtype == np.int32
    assert [int(row["label"]) for row in rows] == [0, 1, 0, 2, 3, 1, 4]
    assert [path.name for path in (tmp_path / "faces").iterdir()] == ["1.0.0"]
    assert len(list((tmp_path / "faces" / "1.0.0").glob("*array_record*"))) == 4
    saved = json.loads((tmp_path / "faces/1.0.0/import_report.json").read_text())
    assert saved == report
    assert (report["entries"], report["rows"], report["identities"]) == (7, 7, 5)
    assert (report["height"], report["width"]) == ([12, 12], [8, 14])
    assert report["rows_without_keypoints"] == 7
    assert report["bad"] == {}


def test_numbers_are_kept_as_labels(tmp_path):
    numbers = [5, 2, NO_IDENTITY, 5, 2**31]
    entries = [Record(str(i), face(i), n) for i, n in enumerate(numbers)]
    report = write(entries, tmp_path, on_error="skip")
    rows = store.open_split(tmp_path, "faces", "train")
    assert [int(row["label"]) for row in rows] == [5, 2, -1, 5]
    assert [row["identity"].item() for row in rows] == [b"5", b"2", b"", b"5"]
    assert (report["identities"], report["num_classes"]) == (2, 6)
    assert report["labels_without_image"] == 4
    assert report["rows_without_identity"] == 1
    assert report["bad"]["wrong label"]["entries"] == [["4", "2147483648 is no int32"]]


def test_bad_entries_are_skipped_and_listed(tmp_path):
    entries = [MISSING, *ENTRIES[:3], BROKEN, MISSING, *ENTRIES[3:], BROKEN, MISSING]
    report = write(entries, tmp_path, on_error="skip")
    rows = store.open_split(tmp_path, "faces", "train")
    assert [row["key"].item().decode() for row in rows] == [e.key for e in ENTRIES]
    assert [int(row["label"]) for row in rows] == [0, 1, 0, 2, 3, 1, 4]
    assert report["entries"] == 12
    assert report["identities"] == 5  # only broken images: no identity
    assert report["bad"]["missing image"]["count"] == 3
    broken = report["bad"]["broken image"]
    assert broken["count"] == 2
    assert broken["entries"][0][0] == "broken.jpg"
    assert "truncated" in broken["entries"][0][1]


def test_bad_entries_are_fatal_by_default_and_leave_nothing(tmp_path):
    with pytest.raises(ValueError, match=r"got 'gone.jpg' with missing image \(it is"):
        write([ENTRIES[0], MISSING], tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(
        ValueError, match="'broken.jpg' with broken image .*on-error skip"
    ):
        write([*ENTRIES[:5], BROKEN], tmp_path)
    with pytest.raises(ValueError, match="must hold a finished version"):
        store.open_split(tmp_path, "faces", "train")
    # What is finished is not lost: the same command, told to skip, goes on.
    write([*ENTRIES[:5], BROKEN], tmp_path, on_error="skip")
    assert len(store.open_split(tmp_path, "faces", "train")) == 5


@pytest.mark.parametrize("entries", [[], [MISSING], [BROKEN, MISSING, BROKEN]])
def test_no_good_image_at_all(tmp_path, entries):
    with pytest.raises(ValueError, match="at least one good image; got"):
        write(entries, tmp_path, on_error="skip")
    assert not list(tmp_path.iterdir())


def test_landmarks_known_missing_and_wrong(tmp_path, rng):
    points = rng.uniform(0, 1, (3, 5, 2)).astype(np.float32)
    points[1, 0, 0] = np.nan
    points[2, 4] = 2.5
    rows = {"0.jpg": 0, "1.jpg": 1, "2.jpg": 2}
    landmarks = Landmarks(rows, points, "fraction")
    with pytest.raises(ValueError, match="'1.jpg' with wrong landmarks"):
        write(ENTRIES[:4], tmp_path, landmarks=landmarks)
    report = write(ENTRIES[:4], tmp_path, landmarks=landmarks, on_error="skip")
    got = list(store.open_split(tmp_path, "faces", "train"))
    assert [bool(row["has_keypoints"]) for row in got] == [True, False, False, False]
    np.testing.assert_array_equal(got[0]["keypoints"], points[0])
    assert not np.any([row["keypoints"] for row in got[1:]])
    assert report["rows_without_keypoints"] == 3
    assert report["unused_landmark_rows"] == 2
    counts = {kind: bad["count"] for kind, bad in report["bad"].items()}
    assert counts == {"missing landmarks": 1, "wrong landmarks": 2}


def test_a_table_of_other_points_is_stored_beside_the_keypoints(tmp_path, rng):
    points = rng.uniform(0.2, 0.8, (4, 68, 2)).astype(np.float32)
    points[1, 0] = np.nan  # of the jaw
    points[2, 40] = np.nan  # of an eye
    points[3] = np.nan
    landmarks = Landmarks({f"{i}.jpg": i for i in range(4)}, points, "fraction")
    report = write(ENTRIES[:5], tmp_path, landmarks=landmarks, on_error="skip")
    got = list(store.open_split(tmp_path, "faces", "train"))
    for row, want in zip(got[:4], points, strict=True):
        mask = ~np.isnan(want[:, 0])
        np.testing.assert_array_equal(row["landmark_mask"], mask)
        np.testing.assert_array_equal(row["landmarks"], np.nan_to_num(want))
    assert not got[4]["landmark_mask"].any()
    known = [bool(row["has_keypoints"]) for row in got]
    assert known == [True, True, False, False, False]
    np.testing.assert_array_equal(got[1]["keypoints"][2], points[1, 30])
    assert report["bad"]["missing landmarks"]["count"] == 2
    assert report["rows_with_landmarks"] == 3
    assert report["rows_with_all_landmarks"] == 1
    assert report["unused_landmark_rows"] == 1
    assert report["keypoints_from"] == {"table": 2}


def test_a_layout_without_keypoints_keeps_the_sources(tmp_path, rng):
    points = rng.uniform(0.2, 0.8, (2, 17, 2)).astype(np.float32)
    points[1, 4] = 2.5
    own = rng.random((5, 2)).astype(np.float32)
    entries = [entry._replace(keypoints=own) for entry in ENTRIES[:2]]
    landmarks = Landmarks({"0.jpg": 0, "1.jpg": 1}, points, "fraction")
    with pytest.raises(ValueError, match="'1.jpg' with wrong landmarks"):
        write(entries, tmp_path, landmarks=landmarks)
    report = write(entries, tmp_path, landmarks=landmarks, on_error="skip")
    got = list(store.open_split(tmp_path, "faces", "train"))
    assert [row["landmark_mask"].sum() for row in got] == [17, 0]
    for row in got:
        np.testing.assert_array_equal(row["keypoints"], own)
    assert report["keypoints_from"] == {"source": 2}


def test_pixel_landmarks_are_of_the_image_as_it_is_shown(tmp_path):
    from PIL import Image

    tags = Image.Exif()
    tags[0x0112] = 6  # shown 20 wide, 10 high after a quarter turn
    image = encode(np.zeros((20, 10, 3), np.uint8), exif=tags)
    points = np.full((1, 5, 2), 4.5, np.float32)
    landmarks = Landmarks({"a": 0}, points, "pixel")
    report = write([Record("a", image, "a")], tmp_path, landmarks=landmarks)
    row = store.open_split(tmp_path, "faces", "train")[0]
    np.testing.assert_allclose(row["keypoints"], np.tile([0.25, 0.5], (5, 1)))
    assert (report["height"], report["width"]) == ([10, 10], [20, 20])


def test_own_fields_and_tables(tmp_path):
    entries = [Record("a", face(1), 3, {"part": "probe", "media": -(2**40)})]
    tables = {"pair_same": np.array([True])}
    write(entries, tmp_path, extra={"part": str, "media": int}, tables=tables)
    row = store.open_split(tmp_path, "faces", "train")[0]
    assert row["part"].item() == b"probe"
    assert row["media"] == -(2**40)
    with np.load(tmp_path / "faces/1.0.0/tables.npz") as saved:
        assert saved["pair_same"].tolist() == [True]


def test_number_of_workers_changes_nothing(tmp_path):
    entries = [Record(str(i), face(i), i % 7) for i in range(100)]
    for workers in (1, 4):
        write(entries, tmp_path / str(workers), num_workers=workers, shard_rows=30)
    assert files(tmp_path / "1") == files(tmp_path / "4")


@pytest.fixture
def no_lookahead(monkeypatch):
    """Few entries are read before the first is written."""
    monkeypatch.setattr("kprpe_jax.data.importers.check._CHUNK", 1)


@pytest.mark.parametrize("stop", range(10))
@pytest.mark.usefixtures("no_lookahead")
def test_stopped_import_goes_on_and_gives_the_same(tmp_path, stop):
    entries = [MISSING, *ENTRIES[:4], BROKEN, *ENTRIES[4:], MISSING]
    write(entries, tmp_path / "straight", on_error="skip")
    with pytest.raises(KeyboardInterrupt):
        write(entries, tmp_path / "stopped", on_error="skip", stop=stop)
    with pytest.raises(ValueError, match="must (hold a fin|be a prep)"):
        store.open_split(tmp_path / "stopped", "faces", "train")
    write(entries, tmp_path / "stopped", on_error="skip")
    assert files(tmp_path / "stopped") == files(tmp_path / "straight")


@pytest.mark.usefixtures("no_lookahead")
def test_going_on_does_not_read_finished_shards_again(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        write(ENTRIES, tmp_path, stop=6)
    source, starts = source_of(ENTRIES), []

    def read(start):
        starts.append(start)
        return source.read(start)

    options = {"name": "faces", "origin": {"kind": "test"}, "shard_rows": 2}
    report = write_dataset(RecordSource(read, state="s"), data_dir=tmp_path, **options)
    assert starts == [4]
    assert report["rows"] == 7


def test_finished_import_is_not_repeated(tmp_path):
    report = write(ENTRIES, tmp_path)
    before = files(tmp_path)
    assert write([], tmp_path) == report
    with pytest.raises(ValueError, match="must not exist yet or come from the same"):
        write(ENTRIES, tmp_path, origin={"kind": "other"})
    assert files(tmp_path) == before


@pytest.mark.usefixtures("no_lookahead")
def test_other_source_does_not_go_on(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        write(ENTRIES, tmp_path, stop=6)
    with pytest.raises(ValueError, match="got another shard_rows, split; delete that"):
        write(ENTRIES, tmp_path, shard_rows=3, split="test")
    assert write(ENTRIES, tmp_path)["rows"] == 7


def test_data_set_of_another_kind_is_left_alone(tmp_path):
    (tmp_path / "faces" / "1.0.0").mkdir(parents=True)
    (tmp_path / "faces" / "1.0.0" / "dataset_info.json").write_text("{}")
    with pytest.raises(ValueError, match="got one from elsewhere; choose another name"):
        write(ENTRIES, tmp_path)
    assert list(files(tmp_path)) == ["faces/1.0.0/dataset_info.json"]


def test_one_import_at_a_time(tmp_path):
    with progress.locked(str(tmp_path / "faces")):
        with pytest.raises(ValueError, match="one process at a time must write"):
            write(ENTRIES, tmp_path)
    write(ENTRIES, tmp_path)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"name": "LFW"}, "small letters, digits and _"),
        ({"name": "../faces"}, "small letters, digits and _"),
        ({"split": "a/b"}, "small letters, digits and _"),
        ({"on_error": "warn"}, r"on_error must be one of \('fail', 'skip'\)"),
        ({"num_workers": 0}, "at least 1; got 'fail', 0, 2"),
    ],
)
def test_bad_arguments(tmp_path, options, match):
    with pytest.raises(ValueError, match=match):
        write(ENTRIES, tmp_path / "data", **options)
    assert not list(tmp_path.iterdir())


class FullDisk:
    def __init__(self, path, options):
        Path(path).touch()

    def write(self, row):
        pass

    def close(self):
        raise RuntimeError("write() failed: No space left on device; writing x\nmore")


def test_full_disk_is_one_sentence(tmp_path, monkeypatch):
    module = "kprpe_jax.data.importers.dataset.array_record_module.ArrayRecordWriter"
    with monkeypatch.context() as patch:
        patch.setattr(module, FullDisk)
        with pytest.raises(ValueError, match="have room; got 'write.. failed: No") as e:
            write(ENTRIES, tmp_path)
    assert "\n" not in str(e.value)
    assert not list(tmp_path.iterdir())


IMPORT = """
import os, resource, signal, sys
from tests.data.importers.sources import face
from tests.data.importers.test_dataset import write
from kprpe_jax.data.importers.record import Record

class Entries(list):
    def __getitem__(self, number):
        if number == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(number)

if sys.argv[2] != "0":  # no file may grow larger: what a full disk looks like
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), -1))
entries = Entries(Record(str(i), face(i), i % 9) for i in range(500))
try:
    write(entries, sys.argv[1], shard_rows=100)
except ValueError as e:
    sys.exit(f"error: {e}")
"""


def run_import(folder, limit, kill):
    command = [sys.executable, "-c", IMPORT, str(folder), str(limit), str(kill)]
    root = Path(__file__).resolve().parents[3]
    return subprocess.run(
        command, cwd=root, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_killed_and_out_of_room_and_then_the_same_data(tmp_path):
    assert run_import(tmp_path / "straight", 0, -1).returncode == 0
    for kill in (350, 450):
        assert run_import(tmp_path / "killed", 0, kill).returncode == -9
        with pytest.raises(ValueError, match="must hold a finished version"):
            store.open_split(tmp_path / "killed", "faces", "train")
    assert list((tmp_path / "killed" / "faces").rglob("progress/0000*.json"))
    full = run_import(tmp_path / "killed", 40_000, -1)
    assert full.returncode == 1
    last = full.stderr.strip().splitlines()[-1]
    assert last.startswith("error: import: the source must be readable and ")
    assert "File too large" in last
    assert not (tmp_path / "killed" / "faces" / "1.0.0").exists()
    assert run_import(tmp_path / "killed", 0, -1).returncode == 0
    assert files(tmp_path / "killed") == files(tmp_path / "straight")
