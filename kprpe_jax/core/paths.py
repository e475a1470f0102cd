"""Paths: local ones as pathlib has them, gs:// and s3:// as etils.epath has them.

The one place that knows which of the two a path is. On a local disk a file is written
beside its name and renamed; in a bucket a file is put in one request, and what was
there before is read until the request is done. Either way it is there whole or not at
all.
"""

import contextlib
import errno
import functools
import importlib.util
import os
import pathlib
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any, TypeAlias
from urllib.parse import urlparse

# epath looks once, and TensorFlow, where it is installed, would take gs:// over.
os.environ.setdefault("EPATH_USE_TF", "0")
AnyPath: TypeAlias = pathlib.PurePath  # pathlib.Path, or epath.Path with its methods
ANSWER_SECONDS = 40.0  # in which a bucket must answer when a command begins
PATIENCE_SECONDS = 30.0  # for which writing is tried again while a bucket is away
EXTRA = "pip install 'kprpe_jax[buckets]'"
_PACKAGES = {"gs": "gcsfs", "s3": "s3fs"}
_SCHEMES = tuple(f"{scheme}://" for scheme in _PACKAGES)
_ROOM = 2**30  # bytes that a fetched file leaves free on the disk
# Of fsspec's file systems: nothing is remembered of what other processes may write, and
# a store that does not answer is given up within half a minute.
_FILE_SYSTEMS = {
    "s3": {
        "use_listings_cache": False,
        "config_kwargs": {
            "connect_timeout": 5,
            "read_timeout": 20,
            "retries": {"max_attempts": 1},
        },
    },
    "gcs": {"use_listings_cache": False, "requests_timeout": 20},
}


def is_bucket(path: str | os.PathLike) -> bool:
    """Whether a path lies in a bucket, gs://... or s3://..."""
    return os.fspath(path).startswith(_SCHEMES)


def in_bucket(spec: str) -> str:
    """The path in a bucket that a SPEC names, alone or as NAME:PATH; "" = none."""
    path = spec if is_bucket(spec) else spec.partition(":")[2]
    return path if is_bucket(path) else ""


def as_path(path: str | os.PathLike) -> AnyPath:
    """A path as an object: pathlib's, or for a bucket epath's, with the same methods.

    Raises: ValueError: a bucket, whose package is not installed.
    """
    if not is_bucket(path):
        return pathlib.Path(path)
    from etils import epath  # with asyncio, which most commands need not

    text = os.fspath(path)
    file_system(text)
    return epath.Path(text)


def absolute(path: str | os.PathLike) -> AnyPath:
    """The path that means the same from every folder (epath's would be a local one)."""
    return as_path(path) if is_bucket(path) else pathlib.Path(path).absolute()


def write_bytes(
    path: str | os.PathLike, data: bytes, *, patience: float = PATIENCE_SECONDS
) -> None:
    """Write a file that is there whole or not at all.

    Args:
      path: of the file; a local folder must exist.
      data: all of it.
      patience: seconds for which a bucket that does not answer is asked again.
    """
    path = as_path(path)
    if is_bucket(path):
        _put(os.fspath(path), data, patience)
        return
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(data)
    partial.replace(path)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a UTF-8 file, as `write_bytes`."""
    write_bytes(path, text.encode())


def folder_is_there(path: str | os.PathLike) -> bool:
    """Whether a file can be written at a path: buckets need no folders."""
    return is_bucket(path) or pathlib.Path(path).absolute().parent.is_dir()


def local_file(path: str | os.PathLike) -> str:
    """A file that programs without buckets can open: the file, or a copy of it.

    A copy lies in a folder for temporary files until the process ends.

    Args:
      path: of a file; local ones are given back, whether they exist or not.
    Raises: ValueError: no such file in a bucket, or no room for it.
    """
    text = os.fspath(path)
    if not is_bucket(text):
        return text
    system = file_system(text)
    with bucket_errors(text):
        if not system.isfile(text):
            raise ValueError(f"there is no file {text}; check the path")
        size = system.info(text)["size"]
        scheme, _, rest = text.partition("://")
        target = pathlib.Path(_copies().name, scheme, rest)
        free = shutil.disk_usage(_copies().name).free
        if size > free - _ROOM:
            raise ValueError(
                f"{text} must fit into the folder for temporary files, "
                f"{tempfile.gettempdir()}, beside 1 GiB; got {size:,} bytes for "
                f"{free:,} that are free; set TMPDIR to another folder"
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        system.get_file(text, str(target))
    return str(target)


def in_users_terms(text: str) -> str:
    """A message in which copies of `local_file` have the names of their originals."""
    if _copies.cache_info().currsize:
        for scheme in _PACKAGES:
            text = text.replace(f"{_copies().name}/{scheme}/", f"{scheme}://")
    return text


def check_bucket(path: str | os.PathLike, option: str) -> None:
    """Raise ValueError unless the bucket of a path answers, within ANSWER_SECONDS.

    Args:
      path: in a bucket; it need not be there.
      option: that the user gave it by.
    """
    text = os.fspath(path)
    bucket, key = urlparse(text).netloc, urlparse(text).path.strip("/")
    system = file_system(text)
    failed: list[Exception] = []

    def ask() -> None:
        try:
            if text.startswith("s3://"):
                system.call_s3("list_objects_v2", Bucket=bucket, Prefix=key, MaxKeys=1)
            else:
                system.call(
                    "GET", "b/{}/o", bucket, prefix=key, maxResults=1, json_out=True
                )
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(ANSWER_SECONDS)
    if thread.is_alive():
        said = f"no answer within {ANSWER_SECONDS:g} seconds"
    elif failed:
        known = describe_error(failed[0])
        if known is None:
            raise failed[0]
        said = known[1]
    else:
        return
    raise ValueError(
        f"{option} {text}: the bucket {bucket} must be there and open to you; got: "
        f"{said}; look at its name, the credentials and the network"
    )


@contextlib.contextmanager
def bucket_errors(path: str | os.PathLike) -> Iterator[None]:
    """Raise OSError, which names a path, for what its bucket refuses; none locally."""
    try:
        yield
    except Exception as error:
        known = describe_error(error) if is_bucket(path) else None
        if known is None:
            raise
        raise OSError(*known, os.fspath(path)) from error


def describe_error(error: BaseException) -> tuple[int, str] | None:
    """The system's number and the words for an error of a bucket.

    Returns: None where neither the error nor one behind it is of a bucket, and where it
      names a file already or is a ValueError that tells more.
    """
    if isinstance(error, OSError) and error.filename is not None:
        return None
    if type(error) is ValueError and not re.match(_STATUS, _first_line(error)):
        return None  # one of our own sentences, whatever it came from
    seen: BaseException | None = error
    while seen is not None:
        text = _first_line(seen)
        status = isinstance(seen, ValueError) and re.match(_STATUS, text)
        refused = isinstance(seen, PermissionError)
        missing = isinstance(seen, FileNotFoundError)
        # The system gives its own errors a number, and most of them a file.
        bare = isinstance(seen, OSError) and seen.filename is None
        bare &= isinstance(seen, _OF_BUCKETS) or getattr(seen, "errno", 0) is None
        library = type(seen).__module__.startswith(_LIBRARIES)
        if status or library or bare:
            if refused or re.search(_REFUSED, text):
                return errno.EACCES, f"access is denied ({text})"
            if missing or re.search(_MISSING, text):
                return errno.ENOENT, f"it is not there ({text})"
            return errno.EIO, text
        suppressed = None if seen.__suppress_context__ else seen.__context__
        seen = seen.__cause__ or suppressed
    return None


_REFUSED = r"PERMISSION_DENIED|UNAUTHENTICATED|Forbidden|\b40[13]\b"
_MISSING = r"NOT_FOUND|NoSuchBucket|\b404\b"
# Errors of buckets: these of Python's, what these libraries define, and TensorStore's
# ValueErrors, which begin with a status. (XLA's begin so, too, and are RuntimeErrors.)
_OF_BUCKETS = (PermissionError, FileNotFoundError, ConnectionError, TimeoutError)
_LIBRARIES = (
    *("botocore.", "aiobotocore.", "aiohttp.", "fsspec.", "gcsfs.", "s3fs."),
    *("google.api_core.", "google.auth.", "google.cloud."),
)
_STATUS = (
    r"(UNAVAILABLE|PERMISSION_DENIED|UNAUTHENTICATED|NOT_FOUND|DEADLINE_EXCEEDED|"
    r"FAILED_PRECONDITION|ABORTED|INTERNAL|UNKNOWN|RESOURCE_EXHAUSTED): "
)


def file_system(path: str | os.PathLike) -> Any:
    """The fsspec file system of a bucket, the one that epath takes.

    Raises: ValueError: its package is not installed.
    """
    return _file_system(os.fspath(path).partition("://")[0])


@functools.cache
def _file_system(scheme: str) -> Any:
    """`file_system`, with our settings where the user's own do not speak."""
    package = _PACKAGES[scheme]
    if importlib.util.find_spec(package) is None:
        raise ValueError(
            f"{scheme}:// paths need the package {package}; got none; {EXTRA}"
        )
    import fsspec
    from etils.epath import backend

    name = {"gs": "gcs"}.get(scheme, scheme)
    if scheme == "gs" and (emulator := os.environ.get("STORAGE_EMULATOR_HOST")):
        # TensorStore and ArrayRecord have their own variables for it, and no emulator
        # has the kinds of buckets that gcsfs would ask Google's own store for.
        os.environ.setdefault("TENSORSTORE_GCS_HTTP_URL", emulator)
        os.environ.setdefault("CLOUD_STORAGE_EMULATOR_ENDPOINT", emulator)
        os.environ.setdefault("GOOGLE_AUTH_TOKEN_FOR_TESTING", "emulator")
        os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    users = fsspec.config.conf.setdefault(name, {})
    for setting, value in _FILE_SYSTEMS[name].items():
        users.setdefault(setting, value)
    return backend.fsspec_backend.fs(f"{scheme}://")


def _put(path: str, data: bytes, patience: float) -> None:
    """Put an object."""
    until = time.monotonic() + patience
    while True:
        try:
            with bucket_errors(path):
                file_system(path).pipe_file(path, data)
            return
        except OSError as error:
            if error.errno != errno.EIO or time.monotonic() > until:
                raise
        time.sleep(2)


@functools.cache
def _copies() -> tempfile.TemporaryDirectory:
    """The folder of this process's copies, which goes when the process ends."""
    return tempfile.TemporaryDirectory(prefix="kprpe_jax-")


def _first_line(error: BaseException) -> str:
    """An error in one line, without TensorStore's places in its sources."""
    text = str(error).strip().split("\n")[0].partition(" [")[0]
    late = isinstance(error, TimeoutError) and not text
    return "no answer in time" if late else text[:200] or type(error).__name__
