"""Names of images as lists, tables and data sets write them, found in one another."""

import os
import re
import unicodedata
from collections.abc import Iterable, Sequence

_ENDINGS = re.compile(
    r"(\.(jpe?g|jfif|png|p[gp]m|bmp|gif|tiff?|webp|avif|jp2|heic|heif))+$",
    re.IGNORECASE,
)


def plain_key(key: str) -> str:
    """A name without image endings: `a\\b.jpg.png` and `./a/b.jpg` are `a/b`.

    Backslashes separate folders, too, and composed and decomposed letters are one.
    """
    key = unicodedata.normalize("NFC", key).replace("\\", "/")
    return _ENDINGS.sub("", key.removeprefix("./"))


def top_folder(keys: Iterable[str]) -> str:
    """The folders, with "/", that all names have in common at their beginning."""
    folders = [os.path.dirname(key) for key in keys]
    if not folders or not all(folders):
        return ""
    common = os.path.commonpath(folders) if not _mixed(folders) else ""
    # A person's folder is not in common: names below it tell one file from another.
    deep = all(folder != common for folder in folders)
    return f"{common}/" if common and deep else ""


def _mixed(folders: list[str]) -> bool:
    return len({folder.startswith("/") for folder in folders}) > 1


def match_keys(keys: Sequence[str], wanted: Sequence[str]) -> list[int | None]:
    """Find names among those of a data set.

    As they are; else without image endings (`plain_key`); else without the folders in
    common (`top_folder`) of both. A name that then fits two images fits none.

    Args:
      keys: of the data set's N images.
      wanted: names to find.
    Returns: a row for each of `wanted`; None where there is none.
    """
    exact = {key: row for row, key in enumerate(keys)}
    plain_keys = [plain_key(key) for key in keys]
    plain_wanted = [plain_key(key) for key in wanted]
    here, there = top_folder(plain_keys), top_folder(plain_wanted)
    plain = _single(plain_keys)
    below = _single(key.removeprefix(here) for key in plain_keys)
    found = []
    for key, name in zip(wanted, plain_wanted, strict=True):
        row = exact.get(key)
        row = plain.get(name) if row is None else row
        found.append(below.get(name.removeprefix(there)) if row is None else row)
    return found


def _single(names: Iterable[str]) -> dict[str, int | None]:
    """Place of each name; None for one that is there twice."""
    places: dict[str, int | None] = {}
    for place, name in enumerate(names):
        places[name] = None if name in places else place
    return places
