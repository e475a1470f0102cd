"""A tar archive of images, compressed or not, read without unpacking it to disk."""

import os
import posixpath
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

from kprpe_jax.data.importers.record import (
    MAX_IMAGE_BYTES,
    NO_IDENTITY,
    Record,
    RecordSource,
    RejectedRecord,
    file_state,
)

_DAMAGE = (tarfile.TarError, EOFError, OSError, zlib.error)


class _StrictHeader(tarfile.TarInfo):
    """Member header; where it is cut or damaged, the archive does not just end."""

    @classmethod
    def frombuf(cls, *args: Any) -> tarfile.TarInfo:
        try:
            return super().frombuf(*args)
        except tarfile.EOFHeaderError:
            raise
        except tarfile.HeaderError as e:
            raise tarfile.ReadError(str(e)) from e


def open_tar_images(path: str | os.PathLike) -> RecordSource:
    """Open an archive of images.

    Keys are the members' names, the identity is the folder that holds the image;
    members in no folder have none. Hidden files are ignored, as in folders, and so is
    what macOS adds (`._a.jpg`, `__MACOSX`). Links and devices, absolute names and names
    with ".." are bad entries, as is the place where a damaged archive ends.

    Args:
      path: .tar, .tar.gz, .tar.bz2 or .tar.xz.
    Raises: ValueError: no such file, not a tar archive.
    """
    path = os.fspath(path)
    try:
        tarfile.open(path, "r:*", tarinfo=_StrictHeader).close()
    except _DAMAGE as e:
        raise ValueError(
            f"{path} must be a tar archive; got {_first_line(e)}; "
            "give the path of a whole one"
        ) from e

    def read(start: int) -> Iterator[Record | RejectedRecord]:
        seen: set[str] = set()
        number = 0
        try:
            with tarfile.open(path, "r:*", tarinfo=_StrictHeader) as archive:
                while (member := archive.next()) is not None:
                    archive.members.clear()  # else it keeps all of them in memory
                    if member.isdir() or _is_hidden(member.name):
                        continue
                    if number >= start:
                        yield _entry(archive, member, member.name in seen)
                    seen.add(member.name)
                    number += 1
        except _DAMAGE as e:
            reason = f"ends after {number} entries ({_first_line(e)})"
            yield RejectedRecord(os.path.basename(path), "truncated archive", reason)

    return RecordSource(read, state=file_state(path))


def read_images(path: str | os.PathLike, names: Sequence[str]) -> list[bytes]:
    """The encoded images of these members, in the order of the names.

    Raises: ValueError: the archive lacks some, or ends before them.
    """
    wanted = dict.fromkeys(names, b"")
    for entry in open_tar_images(path).read(0):
        if isinstance(entry, Record) and entry.key.removeprefix("./") in wanted:
            wanted[entry.key.removeprefix("./")] = entry.image
    missing = [name for name, image in wanted.items() if not image]
    if missing:
        raise ValueError(
            f"{os.fspath(path)} must hold all {len(wanted)} images that "
            f"are asked for; {len(missing)} of them are missing, such as "
            f"{', '.join(missing[:3])}; fetch the whole archive."
        )
    return [wanted[name] for name in names]


def _entry(
    archive: tarfile.TarFile, member: tarfile.TarInfo, twice: bool
) -> Record | RejectedRecord:
    name = member.name
    if twice:
        return RejectedRecord(
            name, "duplicate id", "an earlier member has the same name"
        )
    if posixpath.isabs(name) or ".." in name.split("/"):
        return RejectedRecord(name, "wrong path", "must stay inside the archive")
    if not member.isreg():
        return RejectedRecord(
            name, "missing image", "it is a link or a device, not a file"
        )
    if member.size > MAX_IMAGE_BYTES:
        return RejectedRecord(
            name, "broken image", f"more than {MAX_IMAGE_BYTES} bytes"
        )
    image = archive.extractfile(member).read()
    if len(image) < member.size:
        raise EOFError("in the middle of an image")
    identity = posixpath.basename(posixpath.dirname(name))
    return Record(name, image, identity or NO_IDENTITY)


def _is_hidden(name: str) -> bool:
    parts = name.removeprefix("./").split("/")
    return parts[-1].startswith(".") or "__MACOSX" in parts


def _first_line(error: Exception) -> str:
    return str(error).split("\n")[0] or type(error).__name__
