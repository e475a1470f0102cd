"""Rows with random access: what the loader reads. A row is a dict of arrays."""

import copy
from collections.abc import Iterator, Sequence

import numpy as np

_READ_AT_ONCE = 256


class RandomAccessRows(Sequence):
    """Rows that are read several at once; a subclass has `__len__` and `__getitems__`.

    `__getitems__(row numbers) -> list of rows`, with as few reads as it can.
    """

    def __getitem__(self, row: int) -> dict[str, np.ndarray]:
        """Return one row."""
        return self.__getitems__([row])[0]


class Rows(RandomAccessRows):
    """Rows in memory.

    Args:
      arrays: name -> array [N, ...]; the same N for all.
    """

    def __init__(self, arrays: dict[str, np.ndarray]):
        self._arrays = arrays

    def __len__(self) -> int:
        return len(next(iter(self._arrays.values())))

    def __getitems__(self, rows: Sequence[int]) -> list[dict[str, np.ndarray]]:
        """Return several rows."""
        arrays = self._arrays.items()
        return [{key: array[row] for key, array in arrays} for row in rows]


class ChosenRows(RandomAccessRows):
    """Some rows of a source, whose labels count from a first one.

    Args:
      source: rows with random access and the field label.
      rows: int [N], those of the source to show; None = all.
      first_label: subtracted from all labels that are known.
    """

    def __init__(
        self, source: Sequence, *, rows: np.ndarray | None = None, first_label: int = 0
    ):
        self._source = source
        self._rows = np.arange(len(source)) if rows is None else rows
        self._first_label = first_label

    def __len__(self) -> int:
        return len(self._rows)

    def select(self, rows: np.ndarray) -> "ChosenRows":
        """Some of these rows, int [M], in the given order."""
        chosen = copy.copy(self)
        chosen._rows = self._rows[rows]
        return chosen

    def field(self, name: str) -> np.ndarray:
        """A field of all rows as it is in the source, [N, ...]; all of it is read."""
        return read_field(self._source, name)[self._rows]

    def labels(self) -> np.ndarray:
        """Labels int32 [N] of all rows; images stay encoded."""
        return self._counted(self.field("label"))

    def __getitems__(self, rows: Sequence[int]) -> list[dict[str, np.ndarray]]:
        """Return several rows with one read per shard."""
        numbers = [int(self._rows[row]) for row in rows]
        read = self._source.__getitems__(numbers)
        return [self._show(n, row) for n, row in zip(numbers, read, strict=True)]

    def _show(self, number: int, row: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Row `number` of the source as it is shown."""
        return {**row, "label": self._counted(row["label"])}

    def _counted(self, labels: np.ndarray) -> np.ndarray:
        labels = np.asarray(labels, np.int32)
        shifted = labels - np.int32(self._first_label)
        return np.where(labels < 0, labels, shifted)[()]


def rows_of_identities(
    name: str, labels: np.ndarray, identities: tuple[int, int]
) -> np.ndarray:
    """Rows whose label lies in first .. last - 1.

    Args:
      name: of the data set, named in errors.
      labels: int [N].
      identities: (first, last).
    Returns: int [M], rising.
    Raises: ValueError: there are none.
    """
    first, last = identities
    rows = np.flatnonzero((labels >= first) & (labels < last))
    if not rows.size:
        raise ValueError(
            f"identities: some labels of {name} must lie in {first} .. {last - 1}; got "
            f"{labels.min()} .. {labels.max()}; change the identities"
        )
    return rows


def read_rows(source: Sequence, start: int = 0) -> Iterator[dict[str, np.ndarray]]:
    """Yield the rows of a source from number `start` on, some read at once."""
    for first in range(start, len(source), _READ_AT_ONCE):
        yield from source.__getitems__(
            range(first, min(first + _READ_AT_ONCE, len(source)))
        )


def read_fields(source: Sequence, names: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Read fields of all rows, once from first to last.

    Args:
      source: rows with random access, at least one.
      names: of the fields; () = all.
    Returns: name -> array [N, ...]; texts are bytes in an array of objects.
    """
    values: dict[str, list[np.ndarray]] = {}
    for row in read_rows(source):
        for name in names or row:
            values.setdefault(name, []).append(row[name])
    return {name: np.stack(column) for name, column in values.items()}


def read_field(source: Sequence, name: str) -> np.ndarray:
    """One field of all rows, [N, ...], read once from first to last."""
    return read_fields(source, [name])[name]


def read_all(source: Sequence) -> Rows:
    """Read a small source into memory, once from first to last."""
    return Rows(read_fields(source))
