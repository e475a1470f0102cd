"""Text tables of protocols: whole numbers in columns, faults named by line."""

import os
import warnings
from collections.abc import Iterator

import numpy as np


def read_numbers(path: str | os.PathLike, columns: int) -> np.ndarray:
    """Read lines of whole numbers, separated by spaces.

    Args:
      path: the file; IJB-C's has 15.7 million lines.
      columns: numbers in each line.
    Returns: int64 [N, columns].
    Raises: ValueError: unreadable, empty, a line of another form.
    """
    wanted = f"{columns} whole numbers"
    check_file(path)
    try:
        with warnings.catch_warnings(action="ignore"):  # of an empty file
            table = np.loadtxt(path, np.int64, comments=None, ndmin=2)
        if table.shape[1:] == (columns,) and len(table):
            return table
    except ValueError:
        pass  # the loop finds the line
    for number, fields in split_lines(path, None):
        if len(fields) != columns or not all(is_number(f, signed=True) for f in fields):
            raise malformed(path, number, wanted, " ".join(fields))
    raise malformed(path, 1, wanted, "nothing")


def split_lines(
    path: str | os.PathLike, separator: str | None
) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number from 1, fields) of lines that are not blank."""
    check_file(path)
    with open(path, encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, [field.strip() for field in line.split(separator)]


def is_number(text: str, *, signed: bool = False) -> bool:
    """Whether the text is a whole number that int64 holds, in plain digits."""
    digits = text.removeprefix("-") if signed else text
    return digits.isascii() and digits.isdigit() and len(digits) <= 18


def check_file(path: str | os.PathLike) -> None:
    """Raise ValueError unless the file is there."""
    if not os.path.isfile(path):
        raise ValueError(
            f"import: {os.fspath(path)} must be a file; got no such file; fetch "
            "the protocol's lists"
        )


def malformed(
    path: str | os.PathLike, number: int, wanted: str, got: str
) -> ValueError:
    """Error that names a line."""
    return ValueError(
        f"import: line {number} of {os.fspath(path)} must be {wanted}; got "
        f"{got[:80]!r}; repair the line"
    )
