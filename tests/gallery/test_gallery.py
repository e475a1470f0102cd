"""What is put in comes out; whatever goes wrong, the gallery stays whole."""

import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from kprpe_jax.gallery.gallery import Gallery
from kprpe_jax.gallery.header import NetworkSource
from tests.gallery.made import HEADER, entries, make, names_in


@pytest.fixture
def path(tmp_path):
    return tmp_path / "people.gallery"


@pytest.mark.parametrize(
    ("patches", "error"), [("float32", 0), ("bfloat16", 2**-8), ("int8", 1 / 250)]
)
def test_comes_back_as_it_was_put_in(path, patches, error):
    made = make(path, patches=patches)
    with Gallery(path) as gallery:
        contents = gallery.read()
        assert gallery.people() == {"ann": 2, "bob": 2, "cleo": 2}
        assert contents.people == [entry.person for entry in made]
        want = np.stack([entry.features.embeddings for entry in made])
        np.testing.assert_array_equal(contents.features.embeddings, want)
        rows = np.array([[4, 0], [0, 3]])
        got = contents.features.patches[rows]
        want = np.stack([entry.features.patches for entry in made])[rows]
        largest = np.abs(want).max(-1, keepdims=True)
        assert (np.abs(got - want) <= error * largest).all()
        assert (np.abs(got - want).max() > 0) == (error > 0)
        assert contents.features.patches.shape == (6, 4, 16)


def test_no_patches(path):
    make(path, patches="none")
    with Gallery(path) as gallery:
        features = gallery.read().features
        assert features.patches is features.keypoints is None


def test_header_and_keypoints(path):
    made = make(path)
    with Gallery(path) as gallery:
        assert gallery.header == HEADER
        contents = gallery.read()
        got = contents.features.keypoints[np.array([5, 1])]
        want = [made[row].features.keypoints for row in (5, 1)]
        np.testing.assert_array_equal(got, want)
        assert list(contents.num_images) == [1] * 6


def test_a_person_is_replaced_whole_or_not_at_all(path):
    made = make(path)
    secret = made[0].features.patches.tobytes()
    new = [entry._replace(person="ann") for entry in entries(["dora"], seed=5)]
    with Gallery(path) as gallery:
        for wrong in ([*new, made[2]], [change(new[0], embeddings=np.ones(7))]):
            with pytest.raises(ValueError, match="photo named bob/0.jpg|shapes"):
                gallery.replace_photos("ann", wrong)
        assert [name for name, *_ in gallery.photos_of("ann")] == [
            "ann/0.jpg", "ann/1.jpg",
        ]  # fmt: skip
        with pytest.raises(ValueError, match="nobody named 'eve'"):
            gallery.replace_photos("eve", new)
        assert gallery.replace_photos("ann", new[:1]) == 2
        assert gallery.people() == {"ann": 1, "bob": 2, "cleo": 2}
        with pytest.raises(ValueError, match="holds nobody named 'eve'; correct"):
            gallery.photos_of("eve")
    assert secret not in path.read_bytes()


def test_people_come_and_go(path):
    make(path)
    size = path.stat().st_size
    secret = entries(["ann"])[0].features.embeddings.tobytes()
    assert secret in path.read_bytes()
    with Gallery(path, create=HEADER) as gallery:
        gallery.add(entries(["dora"], photos=1, seed=3))
        assert gallery.remove_people(["ann"]) == 2
        assert len(gallery) == 5
        assert list(gallery.people()) == ["bob", "cleo", "dora"]
    assert names_in(path)[-1] == "dora/0.jpg"
    # What was removed is gone from the file, too.
    assert secret not in path.read_bytes()
    assert b"ann/" not in path.read_bytes()
    assert path.stat().st_size == size


def test_removing_somebody_twice_removes_nobody(path):
    make(path)
    before = names_in(path)
    with Gallery(path) as gallery:
        for names in (["ann", "ann"], ["bob", "nobody"]):
            with pytest.raises(ValueError, match="nobody named .*; nobody was removed"):
                gallery.remove_people(names)
    assert names_in(path) == before


def change(entry, **fields):
    return entry._replace(features=entry.features._replace(**fields))


def test_all_of_a_batch_or_nothing(path):
    made = make(path)
    before = names_in(path)
    new = entries(["dora"], seed=5)
    wrong = {
        "a photo named dora/0.jpg or the same file": [*new, new[0]],
        "a photo named ann/0.jpg": [*new, made[0]],
        "named x/1.jpg or the same file under": [
            new[0],
            made[1]._replace(photo="x/1.jpg"),
        ],
        "dora/1.jpg must be finite": [
            new[0],
            change(new[1], patches=new[1].features.patches * np.nan),
        ],
        "dora/0.jpg must be finite and not all zero": [
            change(new[0], embeddings=np.zeros(8, np.float32))
        ],
        r"shapes \(\(8,\), \(4, 16\), \(5, 2\)\) .* got \(\(8,\), \(9, 16\), ": [
            change(new[0], patches=np.ones((9, 16), np.float32))
        ],
    }
    with Gallery(path, create=HEADER) as gallery:
        for message, batch in wrong.items():
            with pytest.raises(ValueError, match=message):
                gallery.add(batch)
            assert len(gallery) == len(before)
    assert names_in(path) == before


def test_another_recognizers_gallery(path):
    make(path)
    other = HEADER._replace(recognizer=NetworkSource("another", "0" * 64))
    with pytest.raises(ValueError, match="made by random .* not by another .* comp"):
        Gallery(path, create=other)
    with (
        Gallery(path) as gallery,
        pytest.raises(ValueError, match="cannot be compared"),
    ):
        gallery.check(other)
    grayer = HEADER._replace(input_spec=HEADER.input_spec._replace(color="gray"))
    with pytest.raises(ValueError, match="16 x 8, RGB, .* are 16 x 8, luma, .* compar"):
        Gallery(path, create=grayer)
    with pytest.raises(ValueError, match="keeps patches as float32; got int8"):
        Gallery(path, create=HEADER._replace(patches="int8"))
    with pytest.raises(ValueError, match="unknown kind of patches 'half'"):
        Gallery(path, create=HEADER._replace(patches="half"))


def test_files_that_are_no_gallery(path, tmp_path):
    with pytest.raises(ValueError, match="there is none at .*people.gallery; enroll"):
        Gallery(path)
    with pytest.raises(ValueError, match="lies in no folder; make it first"):
        Gallery(tmp_path / "no" / "people.gallery", create=HEADER)
    path.write_bytes(b"a text" * 1000)
    with pytest.raises(ValueError, match="damaged or no gallery .*file is not a data"):
        Gallery(path)
    path.unlink()
    sqlite3.connect(path).execute("CREATE TABLE other (x)")
    with pytest.raises(ValueError, match="must be a gallery of format 3; got another"):
        Gallery(path, create=HEADER)
    path.unlink()
    make(path)
    sqlite3.connect(path).execute("PRAGMA user_version = 1")
    with pytest.raises(ValueError, match="is of format 1, .* enroll everybody again"):
        Gallery(path)
    path.unlink()
    make(path, names=["ann"])
    with Gallery(path) as gallery:
        gallery.remove_people(["ann"])
    with Gallery(path) as gallery, pytest.raises(ValueError, match="is empty; enroll"):
        gallery.read()


def test_a_new_gallery_is_a_file_when_somebody_is_in_it(path):
    """Whatever is refused before leaves nothing; what comes next is written."""
    made = entries(["ann"])
    with Gallery(path, create=HEADER) as gallery:
        assert len(gallery) == 0
        with pytest.raises(ValueError, match="must be finite"):
            gallery.add([change(made[0], embeddings=np.full(8, np.nan))])
        with pytest.raises(ValueError, match="a photo named ann/0.jpg or the same"):
            gallery.add([made[0], made[0]])
        assert not path.exists()
        gallery.add(made)
        with pytest.raises(ValueError, match="a photo named ann/0.jpg or the same"):
            gallery.add(made)
    assert names_in(path) == ["ann/0.jpg", "ann/1.jpg"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_bytes(b"")  # killed before the first transaction
    with pytest.raises(ValueError, match="there is none at .*people.gallery"):
        Gallery(path)
    make(path)
    assert len(names_in(path)) == 6


def test_one_photo_is_replaced(path):
    made = make(path)
    new = [entry._replace(person="ann") for entry in entries(["dora"], seed=5)]
    with Gallery(path) as gallery:
        gallery.set_metadata({"ann": {"team": "red"}})
        with pytest.raises(ValueError, match="no photo 'bob/0.jpg' of ann; `gallery"):
            gallery.replace_photos("ann", new[:1], photo="bob/0.jpg")
        with pytest.raises(ValueError, match="photo named bob/0.jpg"):
            gallery.replace_photos("ann", [made[2]], photo="ann/0.jpg")
        assert gallery.replace_photos("ann", new[:1], photo="ann/0.jpg") == 1
        names = [name for name, *_ in gallery.photos_of("ann")]
        assert names == ["ann/1.jpg", "dora/0.jpg"]
        assert gallery.replace_photos("ann", new[1:]) == 2
        assert gallery.read().metadata == {"ann": {"team": "red"}}
    assert made[0].features.patches.tobytes() not in path.read_bytes()


def test_metadata_of_all_or_of_nobody(path):
    make(path)
    with Gallery(path) as gallery:
        assert gallery.metadata() == {}
        with pytest.raises(ValueError, match="nobody named 'eve'"):
            gallery.set_metadata({"ann": {"team": "red"}, "eve": {"team": "blue"}})
        assert gallery.metadata() == {}
        gallery.set_metadata({"bob": {"team": "rød", "born": "1980"}, "ann": {}})
    with Gallery(path) as gallery:
        assert gallery.metadata() == {"bob": {"team": "rød", "born": "1980"}}
        gallery.remove_people(["bob"])
        gallery.add(entries(["bob"]))
        assert gallery.metadata() == {}


def test_a_gallery_of_format_2_is_converted(path):
    """As the version before made it: no metadata, no sources, a flat header."""
    made = make(path)
    database = sqlite3.connect(path)
    old = HEADER.record()
    for name in ("recognizer", "detector", "fusion"):
        old.pop(name)
    old = json.dumps({"name": "random", "fingerprint": "f" * 64, **old})
    database.executescript(
        "ALTER TABLE people DROP COLUMN metadata; PRAGMA user_version = 2;"
    )
    database.execute("UPDATE header SET recognizer = ?", (old,))
    database.commit()
    database.close()
    with Gallery(path, create=HEADER) as gallery:
        assert gallery.header == HEADER
        gallery.set_metadata({"ann": {"team": "red"}})
        contents = gallery.read()
        assert contents.photos == [entry.photo for entry in made]
        rows = np.arange(6)
        want = np.stack([entry.features.patches for entry in made])
        np.testing.assert_array_equal(contents.features.patches[rows], want)
    ((version,),) = sqlite3.connect(path).execute("PRAGMA user_version").fetchall()
    assert version == 3


def test_another_detector_or_fusion(path):
    detector, fusion = (NetworkSource(name, name * 8) for name in ("d", "m"))
    header = HEADER._replace(detector=detector, fusion=fusion)
    with Gallery(path, create=header) as gallery:
        gallery.add(entries(["ann"]))
        gallery.check_detector(None)
        gallery.check_fusion(fusion)
    other = header._replace(detector=NetworkSource("e", "e" * 8))
    with pytest.raises(ValueError, match="were detected by d .dddddddd., not by e "):
        Gallery(path, create=other)
    for wrong, told in ((None, "of a photo each"), (detector, "fused by d .dddddddd.")):
        message = f"fused by m .mmmmmmmm., not {told}: they cannot be compared"
        with pytest.raises(ValueError, match=message):
            Gallery(path, create=header._replace(fusion=wrong))


def test_where_the_networks_lie_is_remembered(path):
    make(path)
    known = HEADER.recognizer._replace(spec="a:w.npz", resolved="a:/w.npz")
    detector = NetworkSource("d", "d" * 8, "d:f", "d:/f", {"min_score": 0.4})
    header = HEADER._replace(recognizer=known, detector=detector)
    Gallery(path, create=header).__exit__()
    with Gallery(path, create=HEADER) as gallery:
        assert gallery.header == header


def test_damage_is_found(path):
    """Bits of features, pages of the file, its end."""
    made = make(path)
    whole = path.read_bytes()

    def read():
        with Gallery(path) as gallery:
            faces = gallery.read().features
            return faces.patches[np.arange(6)]

    for blob in (
        made[2].features.embeddings.tobytes(),
        made[2].features.patches.tobytes(),
    ):
        at = whole.index(blob) + 5
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(ValueError, match="features of bob/0.jpg in .* are damaged"):
            read()
    for damaged in (whole[: len(whole) // 2], whole[:4096] + bytes(8192)):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="is damaged or no gallery .* restore it"):
            read()
    path.write_bytes(whole)
    assert read().shape == (6, 4, 16)


def test_two_writers_wait_for_each_other(path, monkeypatch):
    make(path)
    connect = sqlite3.connect
    monkeypatch.setattr(
        sqlite3, "connect", lambda *a, **k: connect(*a, **{**k, "timeout": 0.1})
    )
    other = connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with Gallery(path) as gallery:
        with pytest.raises(ValueError, match="cannot be used now .*locked"):
            gallery.remove_people(["ann"])
        other.execute("ROLLBACK")
        assert gallery.remove_people(["ann"]) == 2


WRITER = """
    import sys
    from kprpe_jax.gallery.gallery import Gallery
    from tests.gallery.made import HEADER, entries

    with Gallery(sys.argv[1], create=HEADER) as gallery:
        for number in range(10**6):
            gallery.add(entries([f"p{number}"], photos=3, seed=number))
            if number == 0:
                print("ready", flush=True)
            if number % 3 == 2:
                gallery.remove_people([f"p{number - 1}"])
"""


def test_survives_a_kill(path):
    """Killed in the middle of writing, several times: whole transactions only."""
    for round_number in range(4):
        path.unlink(missing_ok=True)
        writer = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(WRITER), str(path)],
            stdout=subprocess.PIPE,
            cwd=os.getcwd(),
        )
        assert writer.stdout.readline() == b"ready\n"
        time.sleep(0.05 + 0.037 * round_number)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        with Gallery(path, create=HEADER) as gallery:
            people = gallery.people()
            assert set(people.values()) <= {3}
            numbers = sorted(int(name[1:]) for name in people)
            last = numbers[-1]
            kept = [n for n in range(last + 1) if n % 3 != 1 or n >= last - 1]
            assert set(numbers) <= set(kept)
            assert set(kept) - set(numbers) <= {last - 1}
            contents = gallery.read()
            assert contents.features.patches[np.arange(len(gallery))].shape[1:] == (
                4,
                16,
            )
            gallery.add(entries(["zoe"], seed=1))  # and it goes on
            assert len(gallery) == 3 * len(people) + 2
