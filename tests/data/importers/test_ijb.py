"""A tiny set in the form of IJB-B and IJB-C; lists with faults."""

import numpy as np
import pytest

from kprpe_jax.data.importers.ijb import open_ijb
from kprpe_jax.data.importers.record import NO_IDENTITY
from tests.data.importers.sources import face, read_all

POINTS = "1.jpg 1 2 3 4 5 6 7 8 9 10"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "meta").mkdir()
    (tmp_path / "loose_crop").mkdir()
    for i in range(1, 5):
        (tmp_path / "loose_crop" / f"{i}.jpg").write_bytes(face(i))
    points = " ".join(str(n) for n in range(1, 11))
    lists = {
        "face_tid_mid.txt": "1.jpg 10 7\n2.jpg 10 7\n3.jpg 11 -1\n4.jpg 12 9\n",
        "name_5pts_score.txt": "".join(f"{i}.jpg {points} 0.9\n" for i in (1, 2, 4)),
        "template_pair_label.txt": "10 11 1\n10 12 0\n11 12 0\n",
        "1N_gallery_G1.csv": "TEMPLATE_ID,SUBJECT_ID,F\n10,3,a\n10,3,b\n12,4,c\n",
        "1N_probe_mixed.csv": "11,3,x\n",
    }
    for name, text in lists.items():
        (tmp_path / "meta" / f"ijbx_{name}").write_text(text)
    return tmp_path


def test_records_and_tables(folder):
    source = open_ijb(folder)
    records, bad = read_all(source)
    assert not bad
    assert [r.image for r in records] == [face(i) for i in range(1, 5)]
    assert [tuple(r.extra.values()) for r in records] == [
        *((10, 7, 0.9), (10, 7, 0.9), (11, -1, 0.0), (12, 9, 0.9))
    ]
    assert {r.identity for r in records} == {NO_IDENTITY}
    want = {
        "pair_template1": [10, 10, 11],
        "pair_template2": [11, 12, 12],
        "pair_same": [True, False, False],
        "gallery_G1_template": [10, 12],
        "gallery_G1_subject": [3, 4],
        "probe_mixed_template": [11],
        "probe_mixed_subject": [3],
    }
    assert {k: v.tolist() for k, v in source.tables.items()} == want
    assert source.tables["pair_same"].dtype == bool
    points = np.arange(1, 11).reshape(5, 2)
    np.testing.assert_allclose(
        source.landmarks.find("2.jpg", 12, 10), (points + 0.5) / [10, 12], rtol=1e-6
    )
    assert source.landmarks.find("3.jpg", 12, 10) is None
    assert read_all(source, 2)[0] == records[2:]


def test_absent_and_repeated_images(folder):
    (folder / "loose_crop" / "2.jpg").unlink()
    path = folder / "meta" / "ijbx_face_tid_mid.txt"
    path.write_text(path.read_text() + "1.jpg 12 9\n")
    source = open_ijb(folder)
    assert [b[:2] for b in read_all(source)[1]] == [
        ("2.jpg", "missing image"),
        ("1.jpg", "duplicate id"),
    ]
    assert next(source.read(4)).kind == "duplicate id"


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("face_tid_mid.txt", "1.jpg 1 1\n\n1.jpg 1\n", r"line 3 of .*got '1\.jpg 1'"),
        ("face_tid_mid.txt", "../1.jpg 1 1\n", "line 1 of .*an image name"),
        ("face_tid_mid.txt", "1.jpg 1 x\n", "line 1 of .*media number"),
        ("face_tid_mid.txt", f"1.jpg 1 {10**20}\n", "line 1 of .*media number"),
        ("face_tid_mid.txt", "", "line 1 of .*an image name"),
        ("template_pair_label.txt", "1 2 1\n\n1 2\n", "line 3 of .*must be 3 whole"),
        ("template_pair_label.txt", "1 2 1\n1 2 1.5\n", "line 2 of .*got '1 2 1.5'"),
        ("template_pair_label.txt", "\n1 2 1\n\n1 2 2\n", "line 4 of .*0 or 1; got"),
        ("template_pair_label.txt", "", "line 1 of .*must be 3 whole numbers"),
        ("1N_gallery_G1.csv", "a,b\n1,2\n1,x\n", "line 3 of .*template,subject"),
        ("1N_gallery_G1.csv", "1,2,a\n1,3,a\n", "line 2 of .*of subject 2, as templa"),
        ("1N_gallery_G1.csv", "a,b\n", "line 1 of .*no line of numbers"),
        ("name_5pts_score.txt", "1.jpg 1 2 3\n", "line 1 of .*and a score in"),
        ("name_5pts_score.txt", POINTS + " 1.5\n", r"a score in \[0, 1\]; got '1.jpg"),
        ("name_5pts_score.txt", POINTS + " nan\n", r"a score in \[0, 1\]; got '1.jpg"),
    ],
)
def test_malformed_lines_are_named(folder, name, text, match):
    (folder / "meta" / f"ijbx_{name}").write_text(text)
    with pytest.raises(ValueError, match=match) as e:
        open_ijb(folder)
    assert name in str(e.value)
    assert "\n" not in str(e.value)


def test_lists_that_are_not_there_or_of_two_sets(folder):
    path = folder / "meta" / "ijby_face_tid_mid.txt"
    path.write_text("1.jpg 1 1\n")
    with pytest.raises(ValueError, match=r"one \*_face_tid_mid.txt; got \['ijbx_fa"):
        open_ijb(folder)
    with pytest.raises(ValueError, match=r"one \*_face_tid_mid.txt; got none"):
        open_ijb(folder / "loose_crop")
