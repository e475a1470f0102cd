"""A gallery under full disks, other writers, and kills at the worst moment."""

import shutil
import sqlite3

import pytest

from kprpe_jax.gallery.database import GalleryDatabase, is_gallery_there
from kprpe_jax.gallery.gallery import Gallery
from tests.gallery.made import HEADER, entries, make, names_in

PEOPLE = [f"person {number}" for number in range(40)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "people.gallery"


@pytest.fixture
def small_disk(monkeypatch):
    """SQLite says that the disk is full at so many pages of 4 KiB."""
    pages = {}
    set_up = GalleryDatabase._set_up

    def limited(database):
        set_up(database)
        if pages:
            database._database.execute(f"PRAGMA max_page_count = {pages['most']}")

    monkeypatch.setattr(GalleryDatabase, "_set_up", limited)
    return pages


def test_a_full_disk_is_told_and_what_was_there_stays(path, small_disk):
    before = [entry.photo for entry in make(path)]
    small_disk["most"] = path.stat().st_size // 4096 + 2
    with Gallery(path) as gallery:
        for _ in range(2):  # the lock is free again
            with pytest.raises(ValueError, match=r"now \(database or disk is full\)"):
                gallery.add(entries(PEOPLE))
        assert len(gallery) == len(before)
    small_disk.clear()
    assert names_in(path) == before
    with Gallery(path) as gallery:
        gallery.add(entries(PEOPLE))
    assert len(names_in(path)) == len(before) + 2 * len(PEOPLE)


def test_a_first_transaction_on_a_full_disk_leaves_no_file(path, small_disk):
    small_disk["most"] = 12
    with Gallery(path, create=HEADER) as gallery:
        with pytest.raises(ValueError, match="disk is full"):
            gallery.add(entries(PEOPLE))
        assert not path.exists()
        small_disk.clear()
        gallery.add(entries(PEOPLE))
    assert len(names_in(path)) == 2 * len(PEOPLE)


def test_photos_of_another_writer_are_given_back(path):
    make(path, names=["ann"])
    ann, bob = entries(["ann"]), entries(["bob"], seed=1)
    renamed = ann[0]._replace(photo="other/0.jpg")
    with Gallery(path) as gallery:
        assert gallery.add_new([ann[1], bob[0], renamed, bob[1]]) == [ann[1], renamed]
        assert gallery.people() == {"ann": 2, "bob": 2}
        assert gallery.add_new(bob) == bob


def test_a_file_that_another_command_takes_away_is_made_again(path, monkeypatch):
    """Both are new; the other's first transaction fails while this one waits."""
    connect = GalleryDatabase._connect
    taken = []

    def connect_late(database, place):
        connect(database, place)
        if place == path and not taken:
            taken.append(path)
            path.unlink()

    with Gallery(path, create=HEADER) as gallery:
        monkeypatch.setattr(GalleryDatabase, "_connect", connect_late)
        gallery.add(entries(["ann"]))
    assert taken
    assert len(names_in(path)) == 2


def test_a_kill_in_the_first_transaction_leaves_no_gallery(path, tmp_path):
    """Part of the pages are written, and the journal says what to undo."""
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("PRAGMA cache_size = 5")  # pages go to the file before the end
    writer.execute("BEGIN")
    writer.execute("CREATE TABLE people (name)")
    writer.executemany("INSERT INTO people VALUES (?)", [("x" * 3000,)] * 200)
    killed = tmp_path / "killed.gallery"
    shutil.copy(path, killed)
    shutil.copy(f"{path}-journal", f"{killed}-journal")
    writer.close()
    assert killed.stat().st_size > 4096
    assert not is_gallery_there(killed)
    with Gallery(killed, create=HEADER) as gallery:
        gallery.add(entries(["ann"]))
    assert len(names_in(killed)) == 2
