"""The real labeled sample, all separators, bad lines."""

import pytest

from kprpe_jax.data.importers.image_list import open_image_list
from tests.data.importers.sources import SHARED, face, needs_shared, read_all


@needs_shared
def test_the_real_small_dataset():
    folder = SHARED / "insightface" / "small_dataset"
    source = open_image_list(folder)
    records, bad = read_all(source)
    assert not bad
    assert source.count == 10
    assert [r.identity for r in records] == list(range(10))
    assert records[3].image == (folder / records[3].key).read_bytes()


@needs_shared
def test_a_real_comma_list_with_another_root():
    path = SHARED / "lfw_small" / "lists" / "lfw_128.txt"
    records, bad = read_all(open_image_list(path, root=SHARED / "lfw_small"))
    assert (len(records), bad) == (10, [])
    assert len({r.identity for r in records}) == 5


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "some pictures").mkdir()
    for i in range(3):
        (tmp_path / f"{i}.jpg").write_bytes(face(i))
        (tmp_path / "some pictures" / f"{i}.jpg").write_bytes(face(i))
    return tmp_path


@pytest.mark.parametrize("separator", ["\t", ",", ", ", " ", "  "])
def test_separators_and_blank_lines(folder, separator):
    lines = [f"{i}.jpg{separator}{7 - i}\n" for i in range(3)]
    (folder / "list").write_text("\n".join(lines))
    records, bad = read_all(open_image_list(folder / "list"))
    assert [(r.key, r.identity) for r in records] == [
        *(("0.jpg", 7), ("1.jpg", 6), ("2.jpg", 5))
    ]
    assert not bad


@pytest.mark.parametrize(
    "line",
    [
        "{row}\t{label}.000000\t{path}",  # MXNet's im2rec
        "{row}\t{label}.000000\t5.000000\t{path}",
        "1\t{path}\t{label}",  # InsightFace
        "1\t{path}\t{label}\t10\t20\t30\t40",
    ],
)
def test_lists_of_other_programs(folder, line):
    lines = [
        line.format(row=i, label=7 - i, path=f"some pictures/{i}.jpg") for i in range(3)
    ]
    (folder / "train.lst").write_text("\ufeff" + "\n".join(lines) + "\n")
    records, bad = read_all(open_image_list(folder / "train.lst"))
    assert not bad
    assert [r.identity for r in records] == [7, 6, 5]
    assert [r.key for r in records] == [f"some pictures/{i}.jpg" for i in range(3)]


def test_paths_of_windows_and_absolute_ones(folder):
    lines = ["some pictures\\0.jpg\t3", f"{folder}/1.jpg\t4", "..\\2.jpg\t5"]
    (folder / "list").write_text("\n".join(lines))
    records, bad = read_all(open_image_list(folder / "list"))
    assert [r.identity for r in records] == [3, 4]
    assert [(x.key, x.kind) for x in bad] == [("..\\2.jpg", "wrong path")]


def test_spaces_in_names_and_labels_that_are_names(folder):
    text = "some pictures/0.jpg\tAnn Lee\nsome pictures/1.jpg\t7\n"
    (folder / "list").write_text(text)
    records, _ = read_all(open_image_list(folder / "list"))
    assert [r.identity for r in records] == ["Ann Lee", "7"]


def test_bad_lines_are_named(folder):
    (folder.parent / "outside.jpg").write_bytes(face(9))
    lines = ["0.jpg 4", "1.jpg", "2.jpg -1", "0.jpg 5", "gone.jpg 3", "1.jpg 3"]
    lines += ["2.jpg x", "../outside.jpg 3", "/etc/passwd 3", "./2.jpg 1.5"]
    lines += ["some\\pictures 99999999999999999999", "./1.jpg 6"]
    (folder / "list").write_text("\n".join(lines))
    source = open_image_list(folder / "list")
    records, bad = read_all(source)
    assert [(r.key, r.identity) for r in records] == [("0.jpg", 4), ("./1.jpg", 6)]
    assert [b[:2] for b in bad] == [
        ("1.jpg", "wrong label"),
        ("2.jpg", "wrong label"),
        ("0.jpg", "duplicate id"),
        ("gone.jpg", "missing image"),
        ("1.jpg", "duplicate id"),
        ("2.jpg", "duplicate id"),
        ("../outside.jpg", "wrong path"),
        ("/etc/passwd", "wrong path"),
        ("./2.jpg", "wrong label"),
        ("some\\pictures", "wrong label"),
    ]
    everything = list(source.read(0))
    assert list(source.read(3)) == everything[3:]  # duplicates are known from any place


@pytest.mark.parametrize(
    ("text", "match"),
    [("", "got none"), ("\n\n", "got none"), ("face.jpg\n", "got 'face.jpg' in the")],
)
def test_what_is_no_list(tmp_path, text, match):
    (tmp_path / "list").write_text(text)
    with pytest.raises(ValueError, match=match):
        open_image_list(tmp_path / "list")
    with pytest.raises(ValueError, match=r"label\.txt must be a list of images"):
        open_image_list(tmp_path)
