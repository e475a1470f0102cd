"""The file of a gallery: one SQLite database, changed in whole transactions.

After a kill the file holds all of a transaction or nothing of it. What is removed is
overwritten with zeros. A new file is read and written by its owner alone.
"""

import contextlib
import json
import os
import pathlib
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

from kprpe_jax.gallery.header import GalleryHeader, read_header_record

_APPLICATION = 0x6B705250  # marks the file as ours
VERSION = 3
_TABLES = """
CREATE TABLE header (recognizer TEXT NOT NULL);
CREATE TABLE people (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,
    metadata TEXT NOT NULL DEFAULT '{}'
);
CREATE TABLE photos (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    person INTEGER NOT NULL REFERENCES people ON DELETE CASCADE,
    name TEXT NOT NULL UNIQUE, digest TEXT NOT NULL UNIQUE, added TEXT NOT NULL,
    num_images INTEGER NOT NULL, embedding BLOB NOT NULL, checksum INTEGER NOT NULL
);
CREATE INDEX photos_of ON photos (person);
CREATE TABLE patches (
    photo INTEGER PRIMARY KEY REFERENCES photos ON DELETE CASCADE,
    keypoints BLOB NOT NULL, data BLOB NOT NULL, checksum INTEGER NOT NULL
);
"""


class GalleryDatabase:
    """The open file. A new one appears on the disk with its first transaction."""

    def __init__(self, path: str | os.PathLike, create: GalleryHeader | None = None):
        """Open the file, or begin one where none is and `create` is given.

        A file of format 2 is converted, in one transaction.

        Args:
          path: of the file.
          create: header of a new gallery.
        Raises: ValueError: no gallery there, not a gallery, damaged, of another format,
          no such folder.
        """
        self.path = pathlib.Path(path)
        self._new = not is_gallery_there(path)
        if self._new and create is None:
            raise ValueError(f"gallery: there is none at {path}; enroll people first.")
        if self._new and not self.path.absolute().parent.is_dir():
            raise ValueError(f"gallery: {path} lies in no folder; make it first.")
        # What is refused before anything is added leaves no file.
        place = ":memory:" if self._new else self.path
        self._database = sqlite3.connect(place, timeout=10, isolation_level=None)
        try:
            with self._clear_errors():
                self._set_up()
                if self._new:
                    self._make(create)
                else:
                    self._check_format()
                (text,) = self.rows("SELECT recognizer FROM header")[0]
                self.header = read_header_record(json.loads(text))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple]:
        """All rows of a query."""
        with self._clear_errors():
            return self._database.execute(query, values).fetchall()

    def stream(self, query: str) -> Iterator[tuple]:
        """The rows of a query, one by one; writers wait until the last."""
        with self._clear_errors():
            yield from self._database.execute(query)

    def run(self, statement: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Run a statement; changes belong into a `transaction`."""
        with self._clear_errors():
            return self._database.execute(statement, values)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """What is done within is done as a whole, or not at all."""
        with self._clear_errors():
            self._begin()
            try:
                if self._new:
                    self._make(self.header)
                yield
                self._database.execute("COMMIT")
            except BaseException:
                self._undo()
                raise
            self._new = False

    def write_header(self, header: GalleryHeader) -> None:
        """Replace the header, within a transaction."""
        self.run("UPDATE header SET recognizer = ?", (json.dumps(header.record()),))
        self.header = header

    def _begin(self) -> None:
        """Lock the file for a transaction; make it if the gallery is new."""
        if not self._new:
            self._database.execute("BEGIN IMMEDIATE")
            return
        while True:
            made = _make_private(self.path)
            try:
                self._connect(self.path)
                self._database.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:  # SQLite may notice it, too
                if made is not None and _identity(self.path) == made:
                    raise
            # Another command may have taken the empty file off the disk meanwhile.
            if made is not None and _identity(self.path) == made:
                return

    def _undo(self) -> None:
        """Undo the transaction; take the empty file of a first one off the disk."""
        if self._database.in_transaction:  # not where SQLite has undone it itself
            self._database.execute("ROLLBACK")
        if not self._new:
            return
        with contextlib.suppress(sqlite3.Error, OSError):
            # Locked, so that no other command begins to write what is taken away.
            self._database.execute("BEGIN IMMEDIATE")
            if not self.path.stat().st_size:
                self.path.unlink()
        self._connect(":memory:")
        self._make(self.header)

    def _connect(self, place: str | os.PathLike) -> None:
        """Go on in another database."""
        self._database.close()
        self._database = sqlite3.connect(place, timeout=10, isolation_level=None)
        self._set_up()

    def _set_up(self) -> None:
        """Trust nothing that the file holds, and overwrite what goes."""
        for setting in (
            "foreign_keys = ON", "secure_delete = ON", "synchronous = FULL",
            "trusted_schema = OFF", "cell_size_check = ON",
        ):  # fmt: skip
            self._database.execute(f"PRAGMA {setting}")

    def _make(self, header: GalleryHeader) -> None:
        """The tables of a new gallery, unless another command just made them."""
        text = json.dumps(header.record())
        if self.rows("SELECT count(*) FROM sqlite_master") != [(0,)]:
            if self.rows("SELECT recognizer FROM header") != [(text,)]:
                raise ValueError(
                    f"gallery: another command has just made {self.path}; run this one "
                    "again."
                )
            return
        for statement in _TABLES.split(";")[:-1]:
            self.run(statement)
        self.run("INSERT INTO header VALUES (?)", (text,))
        self.run(f"PRAGMA application_id = {_APPLICATION}")
        self.run(f"PRAGMA user_version = {VERSION}")

    def _check_format(self) -> None:
        """Raise ValueError unless it is a gallery that can be read."""
        ours = self.rows("PRAGMA application_id") == [(_APPLICATION,)]
        ((version,),) = self.rows("PRAGMA user_version")
        if ours and version == 1:
            raise ValueError(
                f"gallery: {self.path} is of format 1, which does not say how its "
                "faces were framed; enroll everybody again into a new file."
            )
        if ours and version == 2:
            self._convert_2()
        elif not ours or version != VERSION:
            raise ValueError(
                f"gallery: {self.path} must be a gallery of format {VERSION}; got "
                "another file; give a gallery that `enroll` made."
            )

    def _convert_2(self) -> None:
        """Format 2 knew no metadata, and not where its recognizer was loaded from."""
        with self.transaction():
            if self.rows("PRAGMA user_version") != [(2,)]:
                return  # another command was faster
            self.run(
                "ALTER TABLE people ADD COLUMN metadata TEXT NOT NULL DEFAULT '{}'"
            )
            (text,) = self.rows("SELECT recognizer FROM header")[0]
            self.write_header(read_header_record(json.loads(text)))
            self.run(f"PRAGMA user_version = {VERSION}")

    @contextlib.contextmanager
    def _clear_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as e:
            raise ValueError(
                f"gallery: {self.path} cannot be used now ({e}); wait until nobody "
                "else writes it, and look at the rights and the space on the disk."
            ) from e
        except (sqlite3.Error, TypeError, json.JSONDecodeError) as e:
            raise ValueError(
                f"gallery: {self.path} is damaged or no gallery ({e}); restore it from "
                "a copy, or enroll everybody anew."
            ) from e


def _make_private(path: pathlib.Path) -> tuple[int, int] | None:
    """Make an empty file that only its owner reads, as it holds biometric data."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
        return _identity(path)
    except OSError as e:
        raise ValueError(
            f"gallery: {path} cannot be written ({e.strerror}); look at the rights and "
            "the space on the disk."
        ) from e


def _identity(path: pathlib.Path) -> tuple[int, int] | None:
    """Device and number of a file; None where there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def is_gallery_there(path: str | os.PathLike) -> bool:
    """Whether there is a file that holds something."""
    path = pathlib.Path(path)
    journal = path.with_name(f"{path.name}-journal")
    if path.is_file() and journal.exists():
        # A kill in the first transaction leaves a part of it, which reading undoes.
        with (
            contextlib.suppress(sqlite3.Error),
            contextlib.closing(sqlite3.connect(path)) as database,
        ):
            database.execute("SELECT count(*) FROM sqlite_master").fetchall()
    # A kill before the first transaction leaves an empty file.
    return path.exists() and (not path.is_file() or path.stat().st_size > 0)
