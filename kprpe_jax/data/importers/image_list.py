"""A text file with a line "path label" per image, such as label.txt, or a .lst.

MXNet's im2rec writes "index<TAB>label<TAB>...<TAB>path", InsightFace's aligned lists
have "flag<TAB>path<TAB>label<TAB>...".
"""

import os
import re
from collections.abc import Iterator

from kprpe_jax.data.importers.record import (
    Record,
    RecordSource,
    RejectedRecord,
    file_state,
    read_image,
)
from kprpe_jax.data.importers.tables import is_number

_WHOLE = re.compile(r"\.0*$")


def open_image_list(
    path: str | os.PathLike, *, root: str | os.PathLike | None = None
) -> RecordSource:
    """Open an image list.

    Path and label are separated by a tab, else a comma, else spaces; blank lines are
    ignored. Three fields or more between tabs, of which the first is a number, are a
    line of a .lst; of im2rec's several labels the first counts. Where the first label
    is a whole number, all must be; else they are names. Keys are the paths as written.

    Args:
      path: the list; a folder stands for label.txt in it.
      root: folder of the paths, None = the list's folder. Paths that leave it are bad.
    Raises: ValueError: no such file, no line, a first line without label.
    """
    path = os.fspath(path)
    path = os.path.join(path, "label.txt") if os.path.isdir(path) else path
    if not os.path.isfile(path):
        raise ValueError(
            f"{path} must be a list of images; got no such file; give its path"
        )
    root = os.path.abspath(root or os.path.dirname(path))
    count, first = 0, None
    for line in _lines(path):
        first = first or line
        count += 1
    if first is None or first[1] is None:
        raise ValueError(
            f"lines of {path} must be 'path<TAB>label'; got "
            f"{first[0][:60]!r} in the first; repair the list"
            if first
            else f"{path} must have a line per image; got none; check the file"
        )
    numbers = is_number(first[1])

    def read(start: int) -> Iterator[Record | RejectedRecord]:
        seen: set[str] = set()
        for row, (name, label) in enumerate(_lines(path)):
            twice = name in seen
            seen.add(name)
            if row >= start:
                yield _entry(root, name, label, numbers=numbers, twice=twice)

    return RecordSource(read, state=file_state(path), count=count)


def _entry(
    root: str, name: str, label: str | None, *, numbers: bool, twice: bool
) -> Record | RejectedRecord:
    if twice:
        return RejectedRecord(name, "duplicate id", "an earlier line has the same path")
    if label is None or not label or (numbers and not is_number(label)):
        wanted = "a whole number >= 0" if numbers else "a name"
        return RejectedRecord(
            name, "wrong label", f"must be {wanted}; got {label or 'none'}"
        )
    path = os.path.normpath(os.path.join(root, name))
    if "\\" in name and not os.path.exists(path):  # written on Windows
        path = os.path.normpath(os.path.join(root, name.replace("\\", "/")))
    if os.path.commonpath([root, path]) != root:
        return RejectedRecord(name, "wrong path", f"must stay inside {root}")
    image = read_image(path, name)
    if isinstance(image, RejectedRecord):
        return image
    return Record(name, image, int(label) if numbers else label)


def _lines(path: str) -> Iterator[tuple[str, str | None]]:
    """Yield (path, label or None) of lines that are not blank."""
    with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
        for line in file:
            line = line.strip()
            fields = [field.strip() for field in line.split("\t")]
            if len(fields) > 2 and is_number(fields[0]):
                yield _of_lst(fields)
                continue
            separator = next((s for s in "\t," if s in line), None)
            name, *label = line.rsplit(separator, 1) or [""]
            if name:
                yield name.strip(), label[0].strip() if label else None


def _of_lst(fields: list[str]) -> tuple[str, str]:
    """Path and label of a line of im2rec's or InsightFace's lists."""
    whole = [_WHOLE.sub("", field) for field in fields]  # im2rec writes 3.000000
    if is_number(whole[1]):
        return fields[-1], whole[1]
    return fields[1], whole[2]
