"""What was given and not used: counted by reason, and listed in one form of file."""

import collections
import csv
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from kprpe_jax.data.importers.record import RejectedRecord
from kprpe_jax.detection.photo_faces import PhotoFaces

LEFT_OUT = "left_out.csv"  # in a folder; behind its name beside a file
_HEADER = ["name", "kind", "reason"]


class Account(NamedTuple):
    """What was made of everything that was given.

    Attributes:
      used: what was made, such as "used" or "added" -> of how many.
      left_out: kind of reason -> of how many nothing was made.
    """

    used: Mapping[str, int]
    left_out: Mapping[str, int]

    @property
    def given(self) -> int:
        """All that was given."""
        return sum(self.used.values()) + sum(self.left_out.values())

    def describe(self) -> str:
        """Say it, as "5 given: 3 used, 2 left out (no face 1, unreadable 1)"."""
        made = "".join(f"{number} {what}, " for what, number in self.used.items())
        kinds = sorted((kind, n) for kind, n in self.left_out.items() if n)
        why = ", ".join(f"{kind} {number}" for kind, number in kinds)
        total = sum(self.left_out.values())
        return f"{self.given} given: {made}{total} left out" + (f" ({why})" * bool(why))


def make_account(rows: Iterable[RejectedRecord], **used: int) -> Account:
    """Count the rows by their kinds; `used` with _ for a space."""
    used = {name.replace("_", " "): number for name, number in used.items()}
    return Account(used, collections.Counter(row.kind for row in rows))


def left_out_path(output: str | os.PathLike) -> pathlib.Path:
    """Where the list lies: in a folder, or beside a file that is written."""
    output = pathlib.Path(output)
    if output.is_dir():
        return output / LEFT_OUT
    return output.with_name(f"{output.name}.{LEFT_OUT}")


def write_left_out(path: str | os.PathLike, rows: Iterable[RejectedRecord]) -> None:
    """Write a CSV with a line for each: name (a path, or of a row), kind, reason.

    Names that are no UTF-8 keep their bytes, so that they fit the files.
    """
    options = dict(newline="", encoding="utf-8", errors="surrogateescape")
    with open(path, "w", **options) as file:
        writer = csv.writer(file)
        writer.writerow(_HEADER)
        writer.writerows(rows)


def faces_left_out(photo: PhotoFaces, name: str) -> list[RejectedRecord]:
    """What is left out of a photo: all of it, or further faces.

    Args:
      photo: what was found in it.
      name: of the photo, below the folder that was named.
    Returns: one row of a photo without a usable face; of another, a row for each face
      that was asked for and cannot be used.
    """
    if photo.faces:
        return [RejectedRecord(name, "further face", why) for why in photo.reasons]
    kind = "unreadable" if photo.photo is None else "no usable face"
    return [RejectedRecord(name, kind, "; ".join(dict.fromkeys(photo.reasons)))]
