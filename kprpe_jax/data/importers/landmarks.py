"""Tables of five facial points by image name: CSV, text lists, .npz."""

import dataclasses
import os
import zipfile
from collections.abc import Iterator, Sequence

import numpy as np

UNITS = ("fraction", "pixel")
# Numbers after the name: x, y of each point; the same and one score of the face;
# x, y, score of each point.
_COLUMNS = (10, 11, 15)


@dataclasses.dataclass(frozen=True)
class Landmarks:
    """A landmark table.

    Attributes:
      rows: image name -> row of `points`.
      points: float32 [N, 5, 2], (x, y): left eye, right eye, nose, left and right
        mouth corner (left = image left).
      units: "fraction" of width and height, or "pixel" with pixel centers at integers.
    """

    rows: dict[str, int]
    points: np.ndarray
    units: str

    def find(self, name: str, height: int, width: int) -> np.ndarray | None:
        """Points of one image as fractions.

        Args:
          name: of the image.
          height: of the decoded image, pixels.
          width: likewise.
        Returns: float32 [5, 2] in 0..1 of width and height, pixel center i at
          (i + 0.5) / size; None where the table lacks the image.
        """
        if name not in self.rows:
            return None
        points = self.points[self.rows[name]]
        if self.units == "fraction":
            return points
        return ((points + 0.5) / (width, height)).astype(np.float32)


def read_landmarks(
    path: str | os.PathLike, *, units: str, array: str = "points"
) -> Landmarks:
    """Read a landmark table.

    Text: a line per image with its name and 10, 11 or 15 numbers (x, y per point; the
    same and one score; x, y, score per point; scores are ignored), separated by
    comma, tab or spaces; the first line may be a header. An .npz archive: `names` [N]
    and an array [N, 5, 2].

    Args:
      path: the file.
      units: "fraction" or "pixel".
      array: name of the points in an .npz archive.
    Raises: ValueError: unreadable, malformed lines (named by number), a name twice,
      pixels where fractions are due or the other way round.
    """
    path = os.fspath(path)
    if units not in UNITS:
        raise ValueError(
            f"read_landmarks: units must be one of {UNITS}; got {units!r}; choose one"
        )
    if not os.path.isfile(path):
        raise ValueError(
            f"read_landmarks: {path} must be a landmark table; got no such file; give "
            "its path"
        )
    if path.endswith(".npz"):
        names, points = _read_npz(path, array)
    else:
        names, points = _read_text(path)
    if not names:
        raise ValueError(
            f"read_landmarks: {path} must have a row per image; got none; check the "
            "file"
        )
    rows = {name: row for row, name in enumerate(names)}
    if len(rows) < len(names):
        twice = next(name for row, name in enumerate(names) if rows[name] != row)
        raise ValueError(
            f"read_landmarks: names in {path} must be unique; got {twice!r} more than "
            "once; remove all rows of it but one"
        )
    _check_units(path, points, units)
    return Landmarks(rows, points, units)


def _check_units(path: str, points: np.ndarray, units: str) -> None:
    # The median: single rows may hold a failed detection.
    size = float(np.nanmedian(np.abs(points).max(axis=(1, 2))))
    other = UNITS[1 - UNITS.index(units)]
    if (size > 2) != (units == "pixel"):
        raise ValueError(
            f"read_landmarks: coordinates in {path} must be {units}s; got values up to "
            f"{size:g} in a typical row, which are {other}s; pass --landmark-units "
            f"{other}"
        )


def _read_npz(path: str, array: str) -> tuple[list[str], np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            names, points = archive["names"], archive[array]
    except (KeyError, ValueError, OSError, zipfile.BadZipFile) as e:
        raise ValueError(
            f"read_landmarks: {path} must hold the arrays 'names' and {array!r}; got "
            f"{str(e).splitlines()[0]}; name another with --landmark-array"
        ) from e
    if points.shape != (len(names), 5, 2):
        raise ValueError(
            f"read_landmarks: {array!r} in {path} must be [{len(names)}, 5, 2]; got "
            f"{list(points.shape)}; name another with --landmark-array"
        )
    text = names.astype(str) if names.dtype.kind != "S" else np.char.decode(names)
    return text.tolist(), points.astype(np.float32)


def _read_text(path: str) -> tuple[list[str], np.ndarray]:
    names, values, columns = [], [], 0
    for number, fields in _lines(path):
        try:
            row = [float(field) for field in fields[1:]]
        except ValueError as e:
            if number == 1:  # a header
                continue
            raise _malformed(path, number, str(e)) from e
        columns = columns or len(row)
        if len(row) != columns or columns not in _COLUMNS:
            raise _malformed(path, number, f"{len(row)} numbers")
        names.append(fields[0])
        values.append(np.array(row, np.float32))
    table = np.array(values).reshape(len(names), columns or 10)
    if columns == 15:
        return names, table.reshape(-1, 5, 3)[..., :2]
    return names, table[:, :10].reshape(-1, 5, 2)


def _lines(path: str) -> Iterator[tuple[int, Sequence[str]]]:
    """Yield (line number from 1, fields) of lines that are not blank."""
    with open(path, encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            separator = next((s for s in ",\t" if s in line), None)
            if line.strip():
                yield number, [field.strip() for field in line.split(separator)]


def _malformed(path: str, number: int, got: str) -> ValueError:
    return ValueError(
        f"read_landmarks: line {number} of {path} must be a name and {_COLUMNS[0]}, "
        f"{_COLUMNS[1]} or {_COLUMNS[2]} numbers, as many as the lines before; got "
        f"{got}; repair the line"
    )
