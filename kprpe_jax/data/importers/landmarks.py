"""Tables of facial points by image name, five or any number: CSV, text lists, .npz."""

import csv
import dataclasses
import functools
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from kprpe_jax.core.npz import read_npz
from kprpe_jax.data.importers.landmark_order import (
    POINTS,
    header_order,
    names_coordinate,
    seen_order,
)
from kprpe_jax.data.importers.tables import is_number
from kprpe_jax.data.keys import plain_key, top_folder
from kprpe_jax.data.landmark_layouts import NUM_KEYPOINTS, five_keypoints

UNITS = ("fraction", "pixel")
# Numbers after the name: x, y of each point; the same and one score of the face;
# x, y, score of each point.
_COLUMNS = (10, 11, 15)


@dataclasses.dataclass(frozen=True)
class Landmarks:
    """A landmark table.

    Attributes:
      rows: image name -> row of `points`.
      points: float32 [N, K, 2], (x, y). Five are left eye, right eye, nose, left and
        right mouth corner (left = image left), all NaN where the row is a placeholder;
        of another number single points are NaN where they are missing.
      units: "fraction" of width and height, or "pixel" with pixel centers at integers.
    """

    rows: dict[str, int]
    points: np.ndarray
    units: str

    def row(self, name: str) -> int | None:
        """The row of an image: by its name, else by its plain one (`plain_key`).

        Folders that all names of the table have in common may be missing, or a folder
        that all images have in common.

        Raises: ValueError: images of two such folders.
        """
        if name in self.rows:
            return self.rows[name]
        name = plain_key(name)
        if name in self._plain:
            return self._plain[name]
        top, _, below = name.partition("/")
        row = self._plain.get(below) if "/" in below else None
        if row is not None:
            self._tops.add(top)
        if len(self._tops) > 1:
            raise ValueError(
                "--landmarks: the table must name the folder of its images; those of "
                f"{' and '.join(sorted(self._tops))} fit one row, such as {below!r}"
            )
        return row

    @property
    def is_dense(self) -> bool:
        """Whether the points are others than the five keypoints."""
        return self.points.shape[1] != NUM_KEYPOINTS

    def knows(self, name: str) -> bool:
        """Whether the five keypoints of an image are known, or follow from its row."""
        row = self.row(name)
        return row is not None and five_keypoints(self.points[row]) is not None

    def faces(self, name: str) -> list[str]:
        """Names of the faces of an image that has several: name_0, name_1 ...

        So `align --faces all` names them. None where the table has the image itself, or
        nothing of it.
        """
        if not self.holds_faces or self.row(name) is not None:
            return []
        names = (f"{name}_{number}" for number in itertools.count())
        return [*itertools.takewhile(lambda face: self.row(face) is not None, names)]

    @functools.cached_property
    def holds_faces(self) -> bool:
        """Whether the table may hold several faces of an image."""
        return any(name.endswith("_0") for name in self.rows)

    @functools.cached_property
    def _tops(self) -> set[str]:
        """Folders, of images, that the table does not name."""
        return set()

    @functools.cached_property
    def _plain(self) -> dict[str, int | None]:
        """Rows by plain names, and without the folders that all have in common."""
        names = [plain_key(name) for name in self.rows]
        top = top_folder(names)
        found: dict[str, int | None] = {}
        for row, name in zip(self.rows.values(), names, strict=True):
            for key in {name, name.removeprefix(top)}:
                found[key] = None if key in found else row
        return found

    def find(self, name: str, height: int, width: int) -> np.ndarray | None:
        """Points of one image as fractions.

        Args:
          name: of the image.
          height: of the decoded image, pixels.
          width: likewise.
        Returns: float32 [K, 2] in 0..1 of width and height, pixel center i at
          (i + 0.5) / size, NaN where unknown; None where the table lacks the image.
        """
        row = self.row(name)
        if row is None:
            return None
        points = self.points[row]
        if self.units == "fraction":
            return points
        return ((points + 0.5) / (width, height)).astype(np.float32)


def read_landmarks(
    path: str | os.PathLike, *, units: str, array: str = "points"
) -> Landmarks:
    """Read a landmark table.

    Text: a line per image with its name and 10, 11 or 15 numbers (x, y per point; the
    same and one score; x, y, score per point; scores are ignored), separated by comma,
    semicolon, tab or spaces; the first line may be a header. A header that names the
    ten coordinates (lefteye_x, x1, ...) is obeyed, in any order, and its other columns
    are passed over; one of numbered points (x0, y0, x1, ...) may name any number from
    three. The number of images may stand in a line above it, as in CelebA's lists. An
    .npz archive: `names` [N] and an array [N, K, 2].

    A point that is NaN, empty, (0, 0) or (-1, -1) is a placeholder. Of five, the points
    of its row are unknown then; of another number, that point is missing. Where five
    points of most rows are not ordered as a face's, and in another order those of all
    rows are, the table is refused.

    Args:
      path: the file.
      units: "fraction" or "pixel".
      array: name of the points in an .npz archive.
    Raises: ValueError: unreadable, malformed lines (named by number), a name twice,
      pixels where fractions are due or the other way round, points in another order, no
      row whose points are known.
    """
    path = os.fspath(path)
    if units not in UNITS:
        raise ValueError(
            f"--landmark-units must be one of {UNITS}; got {units!r}; choose one"
        )
    if not os.path.isfile(path):
        raise ValueError(
            f"{path} must be a landmark table; got no such file; give its path"
        )
    if path.endswith(".npz"):
        names, points = _read_npz(path, array)
    else:
        names, points = _read_text(path)
    if not names:
        raise ValueError(f"{path} must have a row per image; got none; check the file")
    rows = {name: row for row, name in enumerate(names)}
    if len(rows) < len(names):
        twice = next(name for row, name in enumerate(names) if rows[name] != row)
        raise ValueError(
            f"names in {path} must be unique; got {twice!r} more than "
            "once; remove all rows of it but one"
        )
    placeholder = np.isin(points, (0, -1)).all(2)  # [N, K]
    unknown = placeholder | np.isnan(points).any(2)
    if points.shape[1] == NUM_KEYPOINTS:
        unknown |= unknown.any(1, keepdims=True)
    points = np.where(unknown[..., None], np.float32(np.nan), points)
    if np.isnan(points).all():
        raise ValueError(
            f"{path} must have a row whose points are known; got NaN, "
            "0 or -1 in all; check the file"
        )
    if points.shape[1] == NUM_KEYPOINTS:
        _check_order(path, points)
    _check_units(path, points, units)
    return Landmarks(rows, points, units)


def _check_order(path: str, points: np.ndarray) -> None:
    other = seen_order(points.reshape(-1, 10))
    if other is not None:
        raise ValueError(
            f"points in {path} must be {', '.join(POINTS)} of the "
            f"image, x before y; the faces say that they stand otherwise: {other}; "
            "reorder them, or name the columns in the first line, such as "
            "lefteye_x,lefteye_y (left in the image)"
        )


def _check_units(path: str, points: np.ndarray, units: str) -> None:
    # The median: single rows may hold a failed detection.
    known = points[~np.isnan(points).all((1, 2))]
    size = float(np.median(np.nanmax(np.abs(known), axis=(1, 2))))
    other = UNITS[1 - UNITS.index(units)]
    if (size > 2) != (units == "pixel"):
        raise ValueError(
            f"coordinates in {path} must be {units}s; got values up to "
            f"{size:g} in a typical row, which are {other}s; pass --landmark-units "
            f"{other}"
        )


def _read_npz(path: str, array: str) -> tuple[list[str], np.ndarray]:
    try:
        arrays = read_npz(path)
        names, points = arrays["names"], arrays[array]
    except (KeyError, ValueError) as e:
        raise ValueError(
            f"{path} must hold the arrays 'names' and {array!r}; got "
            f"{str(e.args[0]).splitlines()[0]}; name another with --landmark-array"
        ) from e
    if points.ndim != 3 or points.shape[::2] != (len(names), 2) or len(points[0]) < 3:
        raise ValueError(
            f"{array!r} in {path} must hold five points, or another "
            f"number from three, as [{len(names)}, 5, 2]; got {list(points.shape)}; "
            "name another with --landmark-array"
        )
    text = names.astype(str) if names.dtype.kind != "S" else np.char.decode(names)
    return text.tolist(), points.astype(np.float32)


def _read_text(path: str) -> tuple[list[str], np.ndarray]:
    names, values, columns, order = [], [], 0, None
    count = None  # of images, where the first line says it
    for number, fields in _lines(path):
        if number == 1 and len(fields) == 1 and is_number(fields[0]):
            count = int(fields[0])
            continue
        try:
            row = [float(field) if field else np.nan for field in fields[1:]]
        except ValueError as e:
            if number > (1 if count is None else 2):
                raise _malformed(path, number, str(e)) from e
            # CelebA's has no name for the column of names. "Left" is the image's left
            # there, as here: its x is the smaller one of the eyes.
            fields = ["", *fields] if names_coordinate(fields[0]) else fields
            try:
                order = header_order(fields[1:])
            except ValueError as contradiction:
                raise ValueError(
                    f"the header of {path} {contradiction}; correct it"
                ) from contradiction
            header = len(fields) - 1
            continue
        columns = columns or len(row)
        known = columns in _COLUMNS or order is not None
        if len(row) != columns or not known:
            raise _malformed(path, number, f"{len(row)} numbers")
        if order is not None and columns != header:
            raise _malformed(path, number, f"{columns} under {header} column names")
        names.append(fields[0])
        values.append(np.array(row, np.float32))
    if count not in (None, len(names)):
        raise ValueError(
            f"{path} must have the {count} rows that its first line "
            f"announces; got {len(names)}; fetch it again"
        )
    table = np.array(values).reshape(len(names), columns or 10)
    if order is not None:
        return names, table[:, order].reshape(len(names), -1, 2)
    if columns == 15:
        return names, table.reshape(-1, 5, 3)[..., :2]
    return names, table[:, :10].reshape(-1, 5, 2)


def _lines(path: str) -> Iterator[tuple[int, Sequence[str]]]:
    """Yield (line number from 1, fields) of lines that are not blank.

    Fields between commas, semicolons or tabs may be quoted, as in any CSV.
    """
    options = dict(encoding="utf-8-sig", errors="surrogateescape", newline="")
    with open(path, **options) as file:
        heads = list(itertools.islice(file, 2))
        file.seek(0)
        separator = (
            _separator(heads[-1]) if heads else None
        )  # a header may have another
        rows = _split(file, separator)
        for number, fields in enumerate(rows, start=1):
            if number == 1 and _separator(heads[0]) != separator:
                fields = next(_split(heads[:1], _separator(heads[0])))
            if any(field.strip() for field in fields):
                yield number, [field.strip() for field in fields]


def _separator(line: str) -> str | None:
    return next((separator for separator in ",;\t" if separator in line), None)


def _split(lines: Iterable[str], separator: str | None) -> Iterator[list[str]]:
    if separator is None:
        return (line.split() for line in lines)
    return csv.reader(lines, delimiter=separator)


def _malformed(path: str, number: int, got: str) -> ValueError:
    return ValueError(
        f"line {number} of {path} must be a name and {_COLUMNS[0]}, "
        f"{_COLUMNS[1]} or {_COLUMNS[2]} numbers, as many as the lines before, or what "
        f"a first line such as name,x0,y0,x1,y1,x2,y2 names; got {got}; repair the line"
    )
