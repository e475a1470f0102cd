"""A folder per identity, images in it."""

import os
from collections.abc import Iterator

from kprpe_jax.data.importers.record import (
    Record,
    RecordSource,
    RejectedRecord,
    names_state,
    read_image,
)
from kprpe_jax.data.read_photos import visible_names


def open_image_folder(folder: str | os.PathLike) -> RecordSource:
    """Open a folder of identities.

    Identities and images come in the order of their names; hidden files are ignored.
    Keys are "identity/file". An identity without images, a file outside of an identity
    and a folder inside of one are bad entries.

    Args:
      folder: the folder.
    Raises: ValueError: no such folder, or no folder in it.
    """
    folder = os.fspath(folder)
    names = visible_names(folder) if os.path.isdir(folder) else []
    if not any(os.path.isdir(os.path.join(folder, name)) for name in names):
        raise ValueError(
            f"{folder} must hold a folder per identity; got "
            + (f"{names[:3]} ..." if names else "nothing")
            + "; give the folder above the identities"
        )
    # One pass that keeps sizes only: a list of all paths would fill the memory.
    sizes: list[int] = []

    def all_names() -> Iterator[str]:
        for name in names:
            files = _entries(folder, name)
            sizes.append(len(files))
            yield from (f"{name}/{file}" for file in files)

    state = names_state(all_names())

    def read(start: int) -> Iterator[Record | RejectedRecord]:
        for name, size in zip(names, sizes, strict=True):
            if start < size:
                for file in _entries(folder, name)[start:]:
                    yield _entry(folder, name, file)
            start = max(0, start - size)

    return RecordSource(read, state=state, count=sum(sizes))


def _entries(folder: str, name: str) -> list[str]:
    """Return the files of an identity; "" is the one entry of an odd one."""
    path = os.path.join(folder, name)
    return (visible_names(path) if os.path.isdir(path) else []) or [""]


def _entry(folder: str, name: str, file: str) -> Record | RejectedRecord:
    path = os.path.join(folder, name, file)
    if not file:
        if os.path.isdir(path):
            return RejectedRecord(name, "empty identity", "its folder holds no image")
        return RejectedRecord(
            name, "wrong label", "the file is in no identity's folder"
        )
    key = f"{name}/{file}"
    if os.path.isdir(path):
        return RejectedRecord(
            key, "wrong label", "a folder inside an identity's folder"
        )
    image = read_image(path, key)
    return image if isinstance(image, RejectedRecord) else Record(key, image, name)
