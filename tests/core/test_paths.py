"""Paths: the same calls on a local folder and in buckets of real servers."""

import errno
import os
import pathlib

import pytest

from kprpe_jax.core import paths
from tests.bucket_servers import BUCKET, use


@pytest.fixture(scope="module", params=["local", "s3", "gs"])
def root(request, tmp_path_factory):
    """A folder to write in."""
    if request.param == "local":
        yield str(tmp_path_factory.mktemp("paths"))
        return
    with use(request.param) as bucket:
        yield f"{bucket}/paths"


def test_a_file_is_written_and_read(root):
    path = paths.as_path(root) / "a.json"
    assert str(path) == f"{root}/a.json"
    assert not path.is_file()
    for text in ("first", "second, longer"):
        paths.write_text(path, text)
        assert path.read_text() == text
    assert [x.name for x in paths.as_path(root).iterdir()] == ["a.json"]
    with open(paths.local_file(path)) as file:
        assert file.read() == "second, longer"
    paths.check_bucket(root, "--workdir") if paths.is_bucket(root) else None


def test_a_missing_file_is_named_as_the_user_did(root):
    path = f"{root}/nothing.safetensors"
    if not paths.is_bucket(root):
        assert paths.local_file(path) == path
        return
    with pytest.raises(ValueError, match=f"no file {path}"):
        paths.local_file(path)


def test_copies_have_the_names_of_their_originals(root):
    paths.write_bytes(f"{root}/b.bin", b"123")
    copy = paths.local_file(f"{root}/b.bin")
    assert paths.in_users_terms(f"{copy} is damaged") == f"{root}/b.bin is damaged"


def test_other_buckets_are_not_there(root):
    if not paths.is_bucket(root):
        return
    other = root.replace(BUCKET, "no-such-bucket")
    with pytest.raises(ValueError, match="bucket no-such-bucket must be there.*not"):
        paths.check_bucket(other, "--workdir")
    with pytest.raises(OSError, match="not there") as refused:
        paths.write_bytes(f"{other}/a", b"")
    assert refused.value.filename == f"{other}/a"


def test_local_paths_stay_pathlibs():
    assert type(paths.as_path("gs:/b")) is type(pathlib.Path())
    assert not any(map(paths.is_bucket, ("gs:/b", "a/gs://b", "/s3/b", "hf://b/c")))
    assert paths.in_bucket("vit:s3://b/c.npz") == "s3://b/c.npz"
    assert paths.in_bucket("gs://b/run@best") == "gs://b/run@best"
    assert not paths.in_bucket("vit:model.npz")


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(paths.importlib.util, "find_spec", lambda name: None)
    paths._file_system.cache_clear()
    with pytest.raises(ValueError, match=r"need the package gcsfs.*\[buckets\]"):
        paths.as_path("gs://bucket/run")


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (PermissionError("Access Denied"), errno.EACCES),
        (FileNotFoundError("bucket/a"), errno.ENOENT),
        (OSError("Forbidden: https://store/b"), errno.EACCES),
        (ValueError("UNAVAILABLE: connecting [source locations='x']"), errno.EIO),
        (ValueError("PERMISSION_DENIED: no"), errno.EACCES),
        (FileNotFoundError(errno.ENOENT, "No such file", "/data/local.npz"), None),
        (ValueError("config: steps must be at least 1"), None),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory"), None),  # of a device
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), None),
    ],
)
def test_errors_of_buckets_are_known(error, number):
    try:
        try:
            raise error
        except Exception as behind:
            raise RuntimeError("a save failed") from behind
    except RuntimeError as outer:
        told = paths.describe_error(outer)
    assert (told and told[0]) == number
    assert told is None or "source locations" not in told[1]


def test_what_a_bucket_refuses_names_the_path():
    with (
        pytest.raises(PermissionError, match="access is denied") as refused,
        paths.bucket_errors("s3://b/run"),
    ):
        raise PermissionError("Access Denied")
    assert refused.value.filename == "s3://b/run"
    with pytest.raises(PermissionError, match="^Access"), paths.bucket_errors("/run"):
        raise PermissionError("Access Denied")
