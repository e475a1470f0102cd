"""A gallery on disk: who is known, and what a network saw of each photo.

One SQLite file. Whatever is added or removed is one transaction: after a kill the file
holds all of it or nothing. What is removed is overwritten with zeros.
"""

import contextlib
import json
import os
import pathlib
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from kprpe_jax.core.features import Features
from kprpe_jax.gallery.packing import KINDS, pack, unpack

_APPLICATION = 0x6B705250  # marks the file as ours
_VERSION = 1
_TABLES = """
CREATE TABLE header (model TEXT NOT NULL);
CREATE TABLE people (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE
);
CREATE TABLE photos (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    person INTEGER NOT NULL REFERENCES people ON DELETE CASCADE,
    name TEXT NOT NULL UNIQUE, digest TEXT NOT NULL UNIQUE, added TEXT NOT NULL,
    embedding BLOB NOT NULL, checksum INTEGER NOT NULL
);
CREATE INDEX photos_of ON photos (person);
CREATE TABLE patches (
    photo INTEGER PRIMARY KEY REFERENCES photos ON DELETE CASCADE,
    data BLOB NOT NULL, checksum INTEGER NOT NULL
);
"""


class Model(NamedTuple):
    """What all rows of a gallery were made with.

    Attributes:
      name: of the network, in words.
      fingerprint: of its weights.
      embed_dim: D.
      grid: (rows, columns) of patches.
      channels: C, of a patch.
      patches: how they are kept, of `packing.KINDS`.
    """

    name: str
    fingerprint: str
    embed_dim: int
    grid: tuple[int, int]
    channels: int
    patches: str


class Entry(NamedTuple):
    """One photo to add.

    Attributes:
      person: name.
      photo: name, the only one of its kind in the gallery: "person/file".
      digest: hexadecimal, of the file.
      embedding: float32 [D].
      patches: float32 [N, C].
    """

    person: str
    photo: str
    digest: str
    embedding: np.ndarray
    patches: np.ndarray


class Contents(NamedTuple):
    """All photos of a gallery, in the order in which they were added.

    Attributes:
      people: G names.
      photos: G names.
      faces: embeddings float32 [G, D], read; patches [G, N, C], read when they are
        indexed, None where the gallery keeps none.
    """

    people: list[str]
    photos: list[str]
    faces: Features


class Gallery:
    """An open gallery; use it in a `with` statement."""

    def __init__(self, path: str | os.PathLike, *, create: Model | None = None):
        """Open a gallery, or make an empty one where none is and `create` is given.

        Raises: ValueError: no gallery there, not a gallery, damaged, of a later format;
          `create` is of another model or keeps patches otherwise.
        """
        self.path = pathlib.Path(path)
        there = self.path.exists()
        if not there and create is None:
            raise ValueError(f"gallery: there is none at {path}; enroll people first.")
        if not there and not self.path.absolute().parent.is_dir():
            raise ValueError(f"gallery: {path} lies in no folder; make it first.")
        if create is not None and create.patches not in KINDS:
            raise ValueError(
                f"gallery: unknown kind of patches {create.patches!r}; use one of "
                f"{KINDS}."
            )
        self._database = sqlite3.connect(self.path, timeout=10, isolation_level=None)
        try:
            with self._clear_errors():
                self._prepare(create)
        except BaseException:
            self._database.close()
            raise

    def __enter__(self) -> "Gallery":
        """Nothing more than opening did."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the file."""
        self._database.close()

    def __len__(self) -> int:
        """Number of photos."""
        with self._clear_errors():
            return self._database.execute("SELECT count(*) FROM photos").fetchone()[0]

    def check_model(self, name: str, fingerprint: str) -> None:
        """Refuse another network's features.

        Raises: ValueError: the gallery was made by another network or other weights.
        """
        if fingerprint != self.model.fingerprint:
            raise ValueError(
                f"gallery: {self.path} was made by {self.model.name} "
                f"({self.model.fingerprint[:12]}), not by {name} "
                f"({fingerprint[:12]}): their features cannot be compared; give the "
                "network that it was made with, or enroll everybody anew."
            )

    def photo_with(self, digest: str) -> str | None:
        """Name of the photo with these bytes, if it is enrolled."""
        with self._clear_errors():
            row = self._database.execute(
                "SELECT name FROM photos WHERE digest = ?", (digest,)
            ).fetchone()
        return row and row[0]

    def has_photo(self, name: str) -> bool:
        """Whether a photo of this name is enrolled."""
        query = "SELECT count(*) FROM photos WHERE name = ?"
        with self._clear_errors():
            return bool(self._database.execute(query, (name,)).fetchone()[0])

    def add(self, entries: Sequence[Entry]) -> None:
        """Add photos, all or none of them.

        Raises: ValueError: a name or a file that is there already; features of another
          shape, not finite, or without a face (zeros).
        """
        for entry in entries:
            self._check(entry)
        with self._clear_errors(), self._transaction():
            for entry in entries:
                self._add(entry)

    def people(self) -> dict[str, int]:
        """Names and how many photos each has, by name."""
        query = (
            "SELECT people.name, count(*) FROM photos JOIN people "
            "ON people.id = photos.person GROUP BY people.id ORDER BY people.name"
        )
        with self._clear_errors():
            return dict(self._database.execute(query).fetchall())

    def remove_people(self, names: Sequence[str]) -> int:
        """Remove people with all their photos, all or none of them.

        Returns: how many photos went.
        Raises: ValueError: somebody who is not there, or is named twice.
        """
        before = len(self)
        with self._clear_errors(), self._transaction():
            for name in names:
                found = self._database.execute(
                    "DELETE FROM people WHERE name = ?", (name,)
                )
                if not found.rowcount:
                    raise ValueError(
                        f"gallery: {self.path} holds nobody named {name!r}, or no "
                        "more; nobody was removed; correct the name."
                    )
        return before - len(self)

    def read(self) -> Contents:
        """All names and embeddings; patches are read later, where they are needed.

        Raises: ValueError: nobody is enrolled; a damaged file.
        """
        query = (
            "SELECT photos.id, people.name, photos.name, embedding, checksum "
            "FROM photos JOIN people ON people.id = photos.person ORDER BY photos.id"
        )
        with self._clear_errors():
            rows = self._database.execute(query).fetchall()
        if not rows:
            raise ValueError(f"gallery: {self.path} is empty; enroll people first.")
        ids, people, photos, blobs, sums = zip(*rows, strict=True)
        embeddings = np.empty((len(rows), self.model.embed_dim), np.float32)
        for row, (blob, checksum) in enumerate(zip(blobs, sums, strict=True)):
            self._check_blob(photos[row], blob, checksum, 4 * self.model.embed_dim)
            embeddings[row] = np.frombuffer(blob, np.float32)
        patches = None
        if self.model.patches != "none":
            patches = StoredPatches(self, np.array(ids), photos)
        return Contents(list(people), list(photos), Features(embeddings, patches))

    def read_patches(self, photo_id: int, name: str) -> np.ndarray:
        """Patches float32 [N, C] of one photo.

        Raises: ValueError: they are damaged or gone.
        """
        query = "SELECT data, checksum FROM patches WHERE photo = ?"
        with self._clear_errors():
            row = self._database.execute(query, (int(photo_id),)).fetchone()
        shape = self._patch_shape
        blob, checksum = row or (b"", 0)
        size = len(pack(np.zeros(shape, np.float32), self.model.patches))
        self._check_blob(name, blob, checksum, size)
        return unpack(blob, self.model.patches, shape)

    @property
    def _patch_shape(self) -> tuple[int, int]:
        rows, columns = self.model.grid
        return rows * columns, self.model.channels

    def _prepare(self, create: Model | None) -> None:
        run = self._database.execute
        for setting in (
            "foreign_keys = ON", "secure_delete = ON", "synchronous = FULL",
            "trusted_schema = OFF", "cell_size_check = ON",
        ):  # fmt: skip
            run(f"PRAGMA {setting}")
        application = run("PRAGMA application_id").fetchone()[0]
        version = run("PRAGMA user_version").fetchone()[0]
        tables = run("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if not tables and create is not None:
            with self._transaction():
                for statement in _TABLES.split(";")[:-1]:
                    run(statement)
                run("INSERT INTO header VALUES (?)", (json.dumps(create._asdict()),))
                run(f"PRAGMA application_id = {_APPLICATION}")
                run(f"PRAGMA user_version = {_VERSION}")
        elif application != _APPLICATION or version != _VERSION:
            raise ValueError(
                f"gallery: {self.path} must be a gallery of format {_VERSION}; got "
                "another file; give a gallery that `enroll` made."
            )
        self.model = self._read_header()
        if create is None:
            return
        self.check_model(create.name, create.fingerprint)
        if create.patches != self.model.patches:
            raise ValueError(
                f"gallery: {self.path} keeps patches as {self.model.patches}; got "
                f"{create.patches}; use the same for all."
            )

    def _read_header(self) -> Model:
        (text,) = self._database.execute("SELECT model FROM header").fetchone()
        model = Model(**json.loads(text))
        return model._replace(grid=tuple(model.grid))

    def _check(self, entry: Entry) -> None:
        shapes = (entry.embedding.shape, entry.patches.shape)
        want = ((self.model.embed_dim,), self._patch_shape)
        if shapes != want:
            raise ValueError(
                f"gallery: features of {entry.photo} must have the shapes {want} as "
                f"all in {self.path}; got {shapes}; use one network."
            )
        finite = np.isfinite(entry.embedding).all() and np.isfinite(entry.patches).all()
        if not finite or not entry.embedding.any():
            raise ValueError(
                f"gallery: features of {entry.photo} must be finite and not all zero; "
                "got others; look at the photo and at the network's weights."
            )

    def _add(self, entry: Entry) -> None:
        run = self._database.execute
        if self.has_photo(entry.photo) or self.photo_with(entry.digest):
            raise ValueError(
                f"gallery: {self.path} holds a photo named {entry.photo} or the same "
                "file under another name; remove the person first, or leave it out."
            )
        run("INSERT OR IGNORE INTO people (name) VALUES (?)", (entry.person,))
        embedding = entry.embedding.astype(np.float32).tobytes()
        photo = run(
            "INSERT INTO photos (person, name, digest, added, embedding, checksum) "
            "SELECT id, ?, ?, datetime('now'), ?, ? FROM people WHERE name = ?",
            (entry.photo, entry.digest, embedding, zlib.crc32(embedding), entry.person),
        ).lastrowid
        if self.model.patches != "none":
            data = pack(entry.patches, self.model.patches)
            row = (photo, data, zlib.crc32(data))
            run("INSERT INTO patches VALUES (?, ?, ?)", row)

    def _check_blob(self, photo: str, blob: bytes, checksum: int, size: int) -> None:
        if len(blob) != size or zlib.crc32(blob) != checksum:
            raise ValueError(
                f"gallery: the features of {photo} in {self.path} are damaged; restore "
                "the file from a copy, or remove this person and enroll anew."
            )

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

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


class StoredPatches:
    """Patches [G, N, C] of a gallery that are read from the disk when indexed."""

    def __init__(self, gallery: Gallery, ids: np.ndarray, names: Sequence[str]):
        self._gallery, self._ids, self._names = gallery, ids, names
        self.shape = (len(ids), *gallery._patch_shape)

    def __len__(self) -> int:
        """G."""
        return len(self._ids)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Patches float32 [..., N, C] of rows [...]; each is read once."""
        known, at = np.unique(rows, return_inverse=True)
        read = [
            self._gallery.read_patches(self._ids[row], self._names[row])
            for row in known
        ]
        return np.stack(read)[at.reshape(np.shape(rows))]
