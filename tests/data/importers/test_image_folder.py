"""ORL written to disk, and a folder with everything that can be wrong in it."""

import numpy as np
import pytest

from kprpe_jax.data.importers.decode import decode_rgb
from kprpe_jax.data.importers.image_folder import open_image_folder
from tests.data.importers.sources import SHARED, encode, face, needs_shared, read_all


@needs_shared
def test_orl_comes_back_exactly(tmp_path):
    with np.load(SHARED / "orl_faces" / "orl_faces.npz") as orl:
        images, subjects, shots = orl["images"], orl["subject"], orl["shot"]
    for image, subject, shot in zip(images, subjects, shots, strict=True):
        path = tmp_path / f"s{subject:02d}" / f"{shot:02d}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encode(image, "PNG"))
    source = open_image_folder(tmp_path)
    records, bad = read_all(source)
    assert not bad
    assert source.count == len(records) == 400
    assert [r.identity for r in records] == [f"s{subject:02d}" for subject in subjects]
    for record, image in zip(records[::37], images[::37], strict=True):
        got = decode_rgb(record.image)
        np.testing.assert_array_equal(got, np.repeat(image[..., None], 3, -1))


@pytest.fixture
def folder(tmp_path):
    for name, count in (("ann", 2), ("bob", 3), ("cid", 0), ("dan", 1)):
        (tmp_path / name).mkdir()
        for i in range(count):
            (tmp_path / name / f"{i}.jpg").write_bytes(face(i))
    return tmp_path


def test_odd_entries_are_named(folder):
    (folder / "notes.txt").write_text("x")
    (folder / "bob" / "more").mkdir()
    (folder / "dan" / "gone.jpg").symlink_to(folder / "nowhere.jpg")
    (folder / ".hidden").mkdir()
    (folder / "ann" / ".DS_Store").write_text("x")
    source = open_image_folder(folder)
    records, bad = read_all(source)
    assert [r.key for r in records] == [
        *("ann/0.jpg", "ann/1.jpg", "bob/0.jpg", "bob/1.jpg", "bob/2.jpg", "dan/0.jpg")
    ]
    assert [b[:2] for b in bad] == [
        ("bob/more", "wrong label"),
        ("cid", "empty identity"),
        ("dan/gone.jpg", "missing image"),
        ("notes.txt", "wrong label"),
    ]
    assert source.count == 10


def test_reading_from_any_place(folder):
    source = open_image_folder(folder)
    everything = list(source.read(0))
    assert len(everything) == source.count == 7
    for start in range(9):
        assert list(source.read(start)) == everything[start:]


def test_state_changes_with_the_names(folder):
    before = open_image_folder(folder).state
    assert open_image_folder(folder).state == before
    (folder / "dan" / "0.jpg").rename(folder / "dan" / "1.jpg")
    assert open_image_folder(folder).state != before


def test_no_identities(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere must hold a folder per identity"):
        open_image_folder(tmp_path / "nowhere")
    (tmp_path / "face.jpg").write_bytes(face(0))
    with pytest.raises(ValueError, match=r"got \['face.jpg'\] .*give the folder above"):
        open_image_folder(tmp_path)
