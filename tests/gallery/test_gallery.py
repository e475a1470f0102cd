"""What is put in comes out; whatever goes wrong, the gallery stays whole."""

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from kprpe_jax.gallery.gallery import Gallery
from tests.gallery.made import MODEL, entries, make


@pytest.fixture
def path(tmp_path):
    return tmp_path / "people.gallery"


def names_in(path):
    with Gallery(path) as gallery:
        return gallery.read().photos


@pytest.mark.parametrize(
    ("patches", "error"), [("float32", 0), ("bfloat16", 2**-8), ("int8", 1 / 250)]
)
def test_comes_back_as_it_was_put_in(path, patches, error):
    made = make(path, patches=patches)
    with Gallery(path) as gallery:
        contents = gallery.read()
        assert gallery.people() == {"ann": 2, "bob": 2, "cleo": 2}
        assert contents.people == [entry.person for entry in made]
        want = np.stack([entry.embedding for entry in made])
        np.testing.assert_array_equal(contents.faces.embeddings, want)
        rows = np.array([[4, 0], [0, 3]])
        got = contents.faces.patches[rows]
        want = np.stack([entry.patches for entry in made])[rows]
        largest = np.abs(want).max(-1, keepdims=True)
        assert (np.abs(got - want) <= error * largest).all()
        assert (np.abs(got - want).max() > 0) == (error > 0)
        assert contents.faces.patches.shape == (6, 4, 16)


def test_no_patches(path):
    make(path, patches="none")
    with Gallery(path) as gallery:
        assert gallery.read().faces.patches is None


def test_people_come_and_go(path):
    make(path)
    size = path.stat().st_size
    secret = entries(["ann"])[0].embedding.tobytes()
    assert secret in path.read_bytes()
    with Gallery(path, create=MODEL) as gallery:
        gallery.add(entries(["dora"], photos=1, seed=3))
        assert gallery.remove_people(["ann"]) == 2
        assert len(gallery) == 5
        assert list(gallery.people()) == ["bob", "cleo", "dora"]
    assert names_in(path)[-1] == "dora/0.jpg"
    # What was removed is gone from the file, too.
    assert secret not in path.read_bytes()
    assert path.stat().st_size == size


def test_removing_somebody_twice_removes_nobody(path):
    make(path)
    before = names_in(path)
    with Gallery(path) as gallery:
        for names in (["ann", "ann"], ["bob", "nobody"]):
            with pytest.raises(ValueError, match="nobody named .*; nobody was removed"):
                gallery.remove_people(names)
    assert names_in(path) == before


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
            new[1]._replace(patches=new[1].patches * np.nan),
        ],
        "dora/0.jpg must be finite and not all zero": [
            new[0]._replace(embedding=np.zeros(8, np.float32))
        ],
        r"shapes \(\(8,\), \(4, 16\)\) .* got \(\(8,\), \(9, 16\)\)": [
            new[0]._replace(patches=np.ones((9, 16), np.float32))
        ],
    }
    with Gallery(path, create=MODEL) as gallery:
        for message, batch in wrong.items():
            with pytest.raises(ValueError, match=message):
                gallery.add(batch)
            assert len(gallery) == len(before)
    assert names_in(path) == before


def test_another_models_gallery(path):
    make(path)
    other = MODEL._replace(fingerprint="0" * 64, name="another")
    with pytest.raises(ValueError, match="made by drawn .* not by another .* compared"):
        Gallery(path, create=other)
    with (
        Gallery(path) as gallery,
        pytest.raises(ValueError, match="cannot be compared"),
    ):
        gallery.check_model("another", "0" * 64)
    with pytest.raises(ValueError, match="keeps patches as float32; got int8"):
        Gallery(path, create=MODEL._replace(patches="int8"))
    with pytest.raises(ValueError, match="unknown kind of patches 'half'"):
        Gallery(path, create=MODEL._replace(patches="half"))


def test_files_that_are_no_gallery(path, tmp_path):
    with pytest.raises(ValueError, match="there is none at .*people.gallery; enroll"):
        Gallery(path)
    with pytest.raises(ValueError, match="lies in no folder; make it first"):
        Gallery(tmp_path / "no" / "people.gallery", create=MODEL)
    path.write_bytes(b"a text" * 1000)
    with pytest.raises(ValueError, match="damaged or no gallery .*file is not a data"):
        Gallery(path)
    path.unlink()
    sqlite3.connect(path).execute("CREATE TABLE other (x)")
    with pytest.raises(ValueError, match="must be a gallery of format 1; got another"):
        Gallery(path, create=MODEL)
    path.unlink()
    Gallery(path, create=MODEL).__exit__()
    with Gallery(path) as gallery, pytest.raises(ValueError, match="is empty; enroll"):
        gallery.read()


def test_damage_is_found(path):
    """Bits of features, pages of the file, its end."""
    made = make(path)
    whole = path.read_bytes()

    def read():
        with Gallery(path) as gallery:
            faces = gallery.read().faces
            return faces.patches[np.arange(6)]

    for blob in (made[2].embedding.tobytes(), made[2].patches.tobytes()):
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
    from tests.gallery.made import MODEL, entries

    with Gallery(sys.argv[1], create=MODEL) as gallery:
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
        with Gallery(path, create=MODEL) as gallery:
            people = gallery.people()
            assert set(people.values()) <= {3}
            numbers = sorted(int(name[1:]) for name in people)
            last = numbers[-1]
            kept = [n for n in range(last + 1) if n % 3 != 1 or n >= last - 1]
            assert set(numbers) <= set(kept)
            assert set(kept) - set(numbers) <= {last - 1}
            contents = gallery.read()
            assert contents.faces.patches[np.arange(len(gallery))].shape[1:] == (4, 16)
            gallery.add(entries(["zoe"], seed=1))  # and it goes on
            assert len(gallery) == 3 * len(people) + 2
