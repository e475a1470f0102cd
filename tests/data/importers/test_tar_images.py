"""The real archive's first members; archives cut, damaged, full of traps."""

import bz2
import gzip
import io
import itertools
import lzma
import tarfile

import pytest

from kprpe_jax.data.importers.record import NO_IDENTITY
from kprpe_jax.data.importers.tar_images import open_tar_images
from tests.data.importers.sources import SHARED, face, needs_shared, read_all


def tar_bytes(names: list[str], **kinds) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for number, name in enumerate(names):
            member = tarfile.TarInfo(name)
            member.type = kinds.get(name, tarfile.REGTYPE)
            member.linkname = "a/1.jpg"
            content = face(number) if member.isreg() else b""
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


NAMES = ["a", "a/1.jpg", "a/2.jpg", "b/deep/1.jpg", "3.jpg"]


@pytest.fixture
def tar() -> bytes:
    return tar_bytes(NAMES, a=tarfile.DIRTYPE)


@needs_shared
def test_the_real_archive_of_lfw():
    path = SHARED / "lfw" / "lfw_df_aligned112.tar.gz"
    entries = list(itertools.islice(open_tar_images(path).read(0), 300))
    with tarfile.open(path) as archive:
        for entry in entries:
            member = archive.next()
            assert entry.key == member.name
            assert entry.identity == member.name.split("/")[0]
            assert entry.image == archive.extractfile(member).read()


@pytest.mark.parametrize(
    "compress", [bytes, gzip.compress, bz2.compress, lzma.compress]
)
def test_members_in_order_from_any_place(tmp_path, tar, compress):
    (tmp_path / "t").write_bytes(compress(tar))
    source = open_tar_images(tmp_path / "t")
    records, bad = read_all(source)
    assert [(r.key, r.identity) for r in records] == [
        ("a/1.jpg", "a"),
        ("a/2.jpg", "a"),
        ("b/deep/1.jpg", "deep"),
        ("3.jpg", NO_IDENTITY),
    ]
    assert [r.image for r in records] == [face(i) for i in range(1, 5)]
    assert not bad
    for start in range(6):
        assert read_all(source, start)[0] == records[start:]


def test_traps_are_named_and_nothing_is_written(tmp_path):
    names = ["a/1.jpg", "../x.jpg", "/x.jpg", "a/../../x.jpg", "link", "hard", "fifo"]
    kinds = {"link": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE, "fifo": tarfile.FIFOTYPE}
    (tmp_path / "t").write_bytes(tar_bytes([*names, "a/1.jpg", "b/2.jpg"], **kinds))
    source = open_tar_images(tmp_path / "t")
    records, bad = read_all(source)
    assert [r.key for r in records] == ["a/1.jpg", "b/2.jpg"]
    assert [b.kind for b in bad] == ["wrong path"] * 3 + ["missing image"] * 3 + [
        "duplicate id"
    ]
    assert [entry.key for entry in source.read(7)] == ["a/1.jpg", "b/2.jpg"]
    assert next(source.read(7)).kind == "duplicate id"
    assert [p.name for p in tmp_path.rglob("*")] == ["t"]


def test_hidden_files_and_those_of_macs_are_ignored(tmp_path):
    names = ["._a", "a/1.jpg", "a/._1.jpg", "a/.DS_Store", "__MACOSX/a/1.jpg"]
    (tmp_path / "mac.tar").write_bytes(tar_bytes(names))
    records, bad = read_all(open_tar_images(tmp_path / "mac.tar"))
    assert ([r.key for r in records], bad) == (["a/1.jpg"], [])


def test_huge_member_is_not_read(tmp_path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo("a/1.jpg")
        member.size = 1 << 40
        archive.addfile(member)
    (tmp_path / "t").write_bytes(buffer.getvalue())
    _, bad = read_all(open_tar_images(tmp_path / "t"))
    assert bad[0][:2] == ("a/1.jpg", "broken image")
    assert bad[-1].kind == "truncated archive"


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_cut_anywhere_is_never_silent(tmp_path, tar, compress):
    content = compress(tar)
    (tmp_path / "t").write_bytes(content)
    whole = read_all(open_tar_images(tmp_path / "t"))[0]
    end = len(content) - 9 if compress is gzip.compress else 8 * 512 + 1
    for size in range(600, end, 256):
        (tmp_path / "t").write_bytes(content[:size])
        records, bad = read_all(open_tar_images(tmp_path / "t"))
        assert records == whole[: len(records)]
        assert [b.kind for b in bad] == ["truncated archive"], size
        assert bad[0].reason.startswith(f"ends after {len(records)} entries")


def test_damaged_header_is_not_the_end(tmp_path, tar):
    content = bytearray(tar)
    third = tar.index(b"a/2.jpg")
    content[third : third + 7] = b"rubbish"
    (tmp_path / "t").write_bytes(content)
    records, bad = read_all(open_tar_images(tmp_path / "t"))
    assert [r.key for r in records] == ["a/1.jpg"]
    assert "ends after 1 entries (bad checksum)" in bad[0].reason


@pytest.mark.parametrize("content", [b"", b"no archive" * 99, bytes(100)])
def test_what_is_no_archive(tmp_path, content):
    (tmp_path / "t").write_bytes(content)
    with pytest.raises(ValueError, match=r"t must be a tar archive; got") as e:
        open_tar_images(tmp_path / "t")
    assert "\n" not in str(e.value)
    with pytest.raises(ValueError, match="nowhere must be a tar archive"):
        open_tar_images(tmp_path / "nowhere")
