"""Metadata of people: a table with a column `person`."""

import csv
import os


def read_metadata(path: str | os.PathLike) -> dict[str, dict[str, str]]:
    """Read a CSV file of people; empty cells are left out.

    Args:
      path: UTF-8, with a header that has the column `person`.
    Returns: person -> other column -> text.
    Raises: ValueError: no such file, not such a table, a person without a name or
      twice.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            rows, columns = list(reader), reader.fieldnames or []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"--metadata {path}: must be a CSV file in UTF-8; got {error}."
        ) from error
    if "person" not in columns or len(set(columns)) < len(columns):
        raise ValueError(
            f"--metadata {path}: must have a header with the column person, each "
            f"column once; got {columns}."
        )
    people: dict[str, dict[str, str]] = {}
    for number, row in enumerate(rows, 2):
        if None in row or None in row.values():
            raise ValueError(
                f"--metadata {path}: row {number} must have {len(columns)} cells, as "
                "the header has; got another number."
            )
        person = row.pop("person")
        if not person or person in people:
            raise ValueError(
                f"--metadata {path}: row {number} must name a person, each once; got "
                f"{person!r}."
            )
        people[person] = {name: text for name, text in row.items() if text}
    return people
