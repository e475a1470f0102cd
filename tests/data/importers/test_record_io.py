"""Record files that the test writes from the description: whole, cut, damaged."""

import re
import struct

import numpy as np
import pytest

from kprpe_jax.data.importers.record_io import (
    end_of_images,
    open_record_io,
    read_index,
)
from tests.data.importers.sources import (
    MAGIC,
    face,
    framed,
    insightface_rec,
    pack,
    read_all,
    write_rec,
)


def test_images_come_back_byte_for_byte(tmp_path):
    source = open_record_io(insightface_rec(tmp_path, [0, 0, 1, 1], classes=2))
    records, bad = read_all(source)
    assert not bad
    assert [r.key for r in records] == ["1", "2", "3", "4"]
    assert [r.identity for r in records] == [0, 0, 1, 1]
    assert [r.image for r in records] == [face(i) for i in range(1, 5)]
    assert source.count == 4
    assert read_all(source, 3) == (records[3:], [])


def several_labels(folder):
    """16 images from index 0 on, no header; each with a second label."""
    labels = [7 - i // 2 for i in range(16)]
    return labels, write_rec(
        folder, {i: pack(face(i), x, 5.0) for i, x in enumerate(labels)}
    )


def test_images_with_several_labels_are_no_header(tmp_path):
    """A record is a header because it has no data, not because of its labels."""
    labels, folder = several_labels(tmp_path)
    source = open_record_io(folder)
    records, bad = read_all(source)
    assert not bad
    assert [r.identity for r in records] == labels
    assert len(records) == 16
    assert source.notes == (
        "an image has 2 labels; number 0 is the identity (--label takes another of 0 "
        "to 1)",
    )
    other = open_record_io(folder, label=1)
    assert {r.identity for r in read_all(other)[0]} == {5}
    assert other.state != source.state
    with pytest.raises(ValueError, match=r"--label .* 0 to 1; got 2"):
        open_record_io(folder, label=2)
    write_rec(folder, {0: pack(face(0), 1, 2), 1: pack(face(1), 1)})
    (broken,) = read_all(open_record_io(folder, label=1))[1]
    assert (broken.key, broken.reason) == (
        "1",
        "must have a label number 1; got 1 labels",
    )


@pytest.mark.parametrize(
    "data",
    [
        MAGIC,
        MAGIC * 3,
        b"abcd" + MAGIC + b"efg",
        b"ab" + MAGIC + b"cd",  # not at a multiple of 4: not cut
        MAGIC + b"x" * 9 + MAGIC + b"y" * 3 + MAGIC + b"z",
        b"",
        b"a",
    ],
)
def test_records_that_hold_the_magic_number(tmp_path, data):
    write_rec(tmp_path, {1: pack(data, 3), 2: pack(b"after", 4)})
    records, bad = read_all(open_record_io(tmp_path / "train.rec"))
    assert [r.image for r in records] == [data, b"after"]
    assert not bad


def test_cut_records_look_as_described():
    assert framed(b"abcd" + MAGIC + b"ef") == (
        MAGIC + struct.pack("<I", 1 << 29 | 4) + b"abcd"
        + MAGIC + struct.pack("<I", 3 << 29 | 2) + b"ef\0\0"
    )  # fmt: skip


def test_without_header_record_all_are_images(tmp_path):
    write_rec(tmp_path, {5: pack(b"x", 1), 0: pack(b"y", 2), 3: pack(b"z", 9, 8)})
    records, _ = read_all(open_record_io(tmp_path))
    got = [(r.key, r.image, r.identity) for r in records]
    assert got == [("0", b"y", 2), ("3", b"z", 9), ("5", b"x", 1)]


def test_rounded_header_of_a_large_set_is_put_right(tmp_path):
    top = 2**24 + 3  # as float32: 2**24 + 4
    contents = {i: pack(face(1), 5) for i in range(top - 3, top)}
    contents |= {i: pack(b"", 1, 3) for i in range(top, top + 2)}
    rec = write_rec(tmp_path, contents) / "train.rec"
    with rec.open("rb") as file:
        table = read_index(tmp_path / "train.idx")
        assert end_of_images(file, str(rec), np.float32(top), *table) == top
        assert end_of_images(file, str(rec), np.float32(77), *table) == 77


@pytest.mark.parametrize("end", [0.0, 9.0, 1e30, float("inf"), float("nan")])
def test_header_that_does_not_fit_its_index(tmp_path, end):
    write_rec(tmp_path, {0: pack(b"", end, end + 2), 1: pack(face(1), 0)})
    with pytest.raises(ValueError, match="the .* record 0 of .*train"):
        open_record_io(tmp_path)


@pytest.mark.parametrize(
    ("labels", "classes", "match"),
    [
        ([0, 1, 2], 2, r"whole 0\.\.1; got 2"),
        ([0, 1, -1], 0, "got -1"),
        ([0, 1, 1.5], 0, "got 1.5"),
        ([0, 1, float("nan")], 0, "got nan"),
    ],
)
def test_wrong_labels_are_bad_entries(tmp_path, labels, classes, match):
    records, bad = read_all(open_record_io(insightface_rec(tmp_path, labels, classes)))
    assert [r.key for r in records] == ["1", "2"]
    assert (bad[0].key, bad[0].kind) == ("3", "wrong label")
    assert re.search(match, bad[0].reason)


def test_damage_costs_its_record_only(tmp_path):
    insightface_rec(tmp_path, [0, 0, 0, 0])
    lines = (tmp_path / "train.idx").read_text().splitlines()
    content = bytearray((tmp_path / "train.rec").read_bytes())
    second = int(lines[2].split()[1])
    content[second : second + 4] = b"oops"
    (tmp_path / "train.rec").write_bytes(content)
    outside = f"3\t{len(content) + 8}"
    kept = [*lines[:3], outside, *lines[5:], "1\t0"]
    (tmp_path / "train.idx").write_text("\n".join(kept))
    records, bad = read_all(open_record_io(tmp_path))
    assert [r.key for r in records] == ["1"]
    assert [(b.key, b.kind) for b in bad] == [
        ("1", "duplicate id"),
        ("2", "broken record"),
        ("3", "broken record"),
        ("4", "missing record"),
    ]
    assert "magic number 0xced7230a; got 0x73706f6f" in bad[1].reason
    assert "must be inside the file; got its end after 0" in bad[2].reason


@pytest.mark.parametrize("cut", [1, 4, 100, 400])
def test_truncated_file_names_every_record_that_it_lacks(tmp_path, cut):
    write_rec(tmp_path, {i: pack(face(i), 0) for i in range(4)})
    content = (tmp_path / "train.rec").read_bytes()
    (tmp_path / "train.rec").write_bytes(content[: len(content) - cut - 3])
    records, bad = read_all(open_record_io(tmp_path))
    assert len(records) + len(bad) == 4
    assert bad
    assert all("truncated" in b.reason for b in bad)
    assert [r.image for r in records] == [face(i) for i in range(len(records))]


def test_parts_out_of_order(tmp_path):
    for word, match in ((2 << 29, "kind 2 as number 1"), (3 << 29, "kind 3 as number")):
        write_rec(tmp_path, {0: pack(b"a", 1), 1: pack(b"b", 1)})
        offset = int((tmp_path / "train.idx").read_text().split()[3])
        content = bytearray((tmp_path / "train.rec").read_bytes())
        content[offset + 4 : offset + 8] = struct.pack("<I", word | 25)
        (tmp_path / "train.rec").write_bytes(content)
        _, bad = read_all(open_record_io(tmp_path))
        assert match in bad[0].reason
    rec = framed(b"a" + bytes(23))[:4] + struct.pack("<I", 1 << 29 | 24) + bytes(24)
    (tmp_path / "train.rec").write_bytes(rec + framed(pack(b"b", 1)))
    (tmp_path / "train.idx").write_text("1\t32\n2\t0\n")
    _, bad = read_all(open_record_io(tmp_path))
    assert "kind 0 as number 2" in bad[0].reason


def test_record_without_room_for_its_header(tmp_path):
    write_rec(
        tmp_path, {0: pack(b"a", 1), 1: b"short", 2: struct.pack("<IfQQ", 9, 0, 0, 0)}
    )
    _, bad = read_all(open_record_io(tmp_path))
    assert [b.key for b in bad] == ["1", "2"]
    assert "must hold its header of 24 bytes" in bad[0].reason


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (
            lambda d: (d / "train.idx").unlink(),
            r"train\.idx must exist: a \.rec file is",
        ),
        (lambda d: (d / "train.rec").unlink(), r"train\.rec must exist"),
        (
            lambda d: (d / "train.idx").write_text(""),
            r"line 1 of .*idx must be 2 .*'nothing'",
        ),
        (
            lambda d: (d / "train.idx").write_text("0\t0\n1\tx\n"),
            r"line 2 of .*; got '1 x'",
        ),
        (lambda d: (d / "train.idx").write_text("0\t0\n1\t-4\n"), r"got \[1, -4\]"),
        (lambda d: (d / "train.idx").write_text("0\t0\t1\n"), "line 1 of"),
        (
            lambda d: (d / "train.rec").write_bytes(b"x" * 99),
            "magic number .*got 0x7878",
        ),
        (lambda d: (d / "train.rec").write_bytes(b""), "must be inside the file"),
        (lambda d: (d / "property").write_text("many"), "property must be 'identities"),
    ],
)
def test_what_cannot_be_opened(tmp_path, damage, match):
    damage(insightface_rec(tmp_path, [0, 1], classes=2))
    with pytest.raises(ValueError, match=match) as e:
        open_record_io(tmp_path)
    assert "\n" not in str(e.value)
