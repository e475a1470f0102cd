"""metrics.jsonl: a JSON row a line, by the training and by who evaluates beside it."""

import contextlib
import errno
import fcntl
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

Row = dict[str, Any]
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
_BUFFER = 2**20  # bytes: a row goes to the file in one piece, or another's is in it


def open_rows(path: pathlib.Path) -> TextIO:
    """Open the file for rows of which each is flushed."""
    return path.open("a", buffering=_BUFFER)


def read_rows(path: pathlib.Path) -> list[Row]:
    """The rows of a file; [] where there is none."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text().splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            rows.append(json.loads(line))
        # else the row that was being written when the run was killed
    return rows


def append_row(path: pathlib.Path, step: int, metrics: Mapping[str, float]) -> None:
    """Add a row, also while a training writes its own or begins."""
    with _held(path) as file:
        write_row(file, step, metrics)


def write_row(file: TextIO, step: int, metrics: Mapping[str, float]) -> None:
    """Write a row to an open file."""
    file.write(json.dumps({"step": step, **metrics}) + "\n")
    file.flush()


def drop_rows_after(path: pathlib.Path, step: int) -> list[Row]:
    """Rewrite the file without the rows of later steps; give all that were there."""
    if not path.exists():
        return []
    with _held(path):
        rows = read_rows(path)
        kept = [json.dumps(row) + "\n" for row in rows if row["step"] <= step]
        partial = path.with_suffix(".partial")
        partial.write_text("".join(kept))
        partial.replace(path)
    return rows


@contextlib.contextmanager
def _held(path: pathlib.Path) -> Iterator[TextIO]:
    """Hold the file alone; who rewrites it puts another one in its place."""
    while True:
        with open_rows(path) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError as e:
                if e.errno not in NO_LOCKS:
                    raise
            if os.fstat(file.fileno()).st_ino == path.stat().st_ino:
                yield file
                return
