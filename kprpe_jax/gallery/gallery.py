"""A gallery on disk: people, and the features of their photos.

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

import numpy as np

from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.core.features import Features
from kprpe_jax.core.input_spec import InputSpec
from kprpe_jax.gallery.header import GalleryContents, GalleryEntry, GalleryHeader
from kprpe_jax.gallery.packing import KINDS, pack, unpack

_APPLICATION = 0x6B705250  # marks the file as ours
_VERSION = 2
_TABLES = """
CREATE TABLE header (recognizer TEXT NOT NULL);
CREATE TABLE people (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE
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


class Gallery:
    """An open gallery; use it in a `with` statement."""

    def __init__(self, path: str | os.PathLike, *, create: GalleryHeader | None = None):
        """Open a gallery, or make an empty one where none is and `create` is given.

        Args:
          path: of the file.
          create: from `describe_gallery`; checked where there is a gallery.
        Raises: ValueError: no gallery there, not a gallery, damaged, of another format;
          `create` is of another recognizer or keeps patches otherwise.
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

    def check(self, other: Recognizer | GalleryHeader) -> None:
        """Refuse the features of another recognizer.

        Raises: ValueError: the gallery was made by another network, other weights, or
          under another input contract.
        """
        name, header = other.name, self.header
        if other.input_spec != header.input_spec:
            raise ValueError(
                f"gallery: the faces of {self.path} are {header.input_spec.describe()} "
                f"({header.name}), those of {name} are {other.input_spec.describe()}: "
                "their features cannot be compared; give the recognizer that it was "
                "made with, or enroll everybody anew."
            )
        fingerprint = other.fingerprint
        if fingerprint != header.fingerprint:
            raise ValueError(
                f"gallery: {self.path} was made by {header.name} "
                f"({header.fingerprint[:12]}), not by {name} "
                f"({fingerprint[:12]}): their features cannot be compared; give the "
                "recognizer that it was made with, or enroll everybody anew."
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

    def add(self, entries: Sequence[GalleryEntry]) -> None:
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
                self._remove(name)
        return before - len(self)

    def replace_person(self, name: str, entries: Sequence[GalleryEntry]) -> int:
        """Remove all photos of a person and add these, all or nothing.

        Args:
          name: somebody who is there.
          entries: at least one, all of this person.
        Returns: how many photos went.
        Raises: ValueError: nobody of this name; as `add`.
        """
        for entry in entries:
            self._check(entry)
        with self._clear_errors(), self._transaction():
            before = len(self)
            self._remove(name)
            removed = before - len(self)
            for entry in entries:
                self._add(entry)
        return removed

    def photos_of(self, name: str) -> list[tuple[str, int, str]]:
        """Photos of a person: names, numbers of images, and when each was added (UTC).

        Raises: ValueError: nobody of this name.
        """
        query = (
            "SELECT photos.name, num_images, added FROM photos JOIN people "
            "ON people.id = photos.person WHERE people.name = ? ORDER BY photos.id"
        )
        with self._clear_errors():
            rows = self._database.execute(query, (name,)).fetchall()
        if not rows:
            raise ValueError(
                f"gallery: {self.path} holds nobody named {name!r}; correct the name."
            )
        return rows

    def read(self) -> GalleryContents:
        """All names and embeddings; patches are read later, where they are needed.

        Raises: ValueError: nobody is enrolled; a damaged file.
        """
        query = (
            "SELECT photos.id, people.name, photos.name, num_images, embedding, "
            "checksum "
            "FROM photos JOIN people ON people.id = photos.person ORDER BY photos.id"
        )
        with self._clear_errors():
            rows = self._database.execute(query).fetchall()
        if not rows:
            raise ValueError(f"gallery: {self.path} is empty; enroll people first.")
        ids, people, photos, counts, blobs, sums = zip(*rows, strict=True)
        embeddings = np.empty((len(rows), self.header.embed_dim), np.float32)
        for row, (blob, checksum) in enumerate(zip(blobs, sums, strict=True)):
            self._check_blob(photos[row], blob, checksum, 4 * self.header.embed_dim)
            embeddings[row] = np.frombuffer(blob, np.float32)
        features = Features(embeddings)
        if self.header.patches != "none":
            stored = (StoredField(self, np.array(ids), photos, i) for i in (0, 1))
            features = Features(embeddings, next(stored), keypoints=next(stored))
        return GalleryContents(list(people), list(photos), np.array(counts), features)

    def read_patches(self, photo_id: int, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Patches float32 [N, C] and keypoints float32 [K, 2] of one photo.

        Raises: ValueError: they are damaged or gone.
        """
        query = "SELECT keypoints, data, checksum FROM patches WHERE photo = ?"
        with self._clear_errors():
            row = self._database.execute(query, (int(photo_id),)).fetchone()
        shape, points = self.shapes
        *blobs, checksum = row or (b"", b"", 0)
        sizes = 8 * points[0], len(pack(np.zeros(shape), self.header.patches))
        self._check_blob(name, b"".join(blobs), checksum, sum(sizes))
        keypoints = np.frombuffer(blobs[0], np.float32).reshape(points)
        return unpack(blobs[1], self.header.patches, shape), keypoints

    @property
    def shapes(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Shapes (N, C) of a photo's patches and (K, 2) of its keypoints."""
        rows, columns = self.header.grid
        return (rows * columns, self.header.channels), (self.header.num_keypoints, 2)

    def _prepare(self, create: GalleryHeader | None) -> None:
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
                header = create._replace(input_spec=create.input_spec._asdict())
                run("INSERT INTO header VALUES (?)", (json.dumps(header._asdict()),))
                run(f"PRAGMA application_id = {_APPLICATION}")
                run(f"PRAGMA user_version = {_VERSION}")
        elif application == _APPLICATION and version == 1:
            raise ValueError(
                f"gallery: {self.path} is of format 1, which does not say how its "
                "faces were framed; enroll everybody again into a new file."
            )
        elif application != _APPLICATION or version != _VERSION:
            raise ValueError(
                f"gallery: {self.path} must be a gallery of format {_VERSION}; got "
                "another file; give a gallery that `enroll` made."
            )
        self.header = self._read_header()
        if create is None:
            return
        self.check(create)
        if create.patches != self.header.patches:
            raise ValueError(
                f"gallery: {self.path} keeps patches as {self.header.patches}; got "
                f"{create.patches}; use the same for all."
            )

    def _read_header(self) -> GalleryHeader:
        (text,) = self._database.execute("SELECT recognizer FROM header").fetchone()
        header = GalleryHeader(**json.loads(text))
        spec = InputSpec(**header.input_spec)
        spec = spec._replace(image_size=tuple(spec.image_size))
        return header._replace(grid=tuple(header.grid), input_spec=spec)

    def _check(self, entry: GalleryEntry) -> None:
        arrays, want = (entry.features.embeddings,), ((self.header.embed_dim,),)
        if self.header.patches != "none":
            arrays += entry.features.patches, entry.features.keypoints
            want += self.shapes
        shapes = tuple(np.shape(x) for x in arrays)
        if shapes != want:
            raise ValueError(
                f"gallery: features of {entry.photo} must have the shapes {want} as "
                f"all in {self.path}; got {shapes}; use one network."
            )
        finite = all(np.isfinite(x).all() for x in arrays)
        if not finite or not arrays[0].any():
            raise ValueError(
                f"gallery: features of {entry.photo} must be finite and not all zero; "
                "got others; look at the photo and at the network's weights."
            )

    def _remove(self, name: str) -> None:
        found = self._database.execute("DELETE FROM people WHERE name = ?", (name,))
        if not found.rowcount:
            raise ValueError(
                f"gallery: {self.path} holds nobody named {name!r}, or no more; nobody "
                "was removed; correct the name."
            )

    def _add(self, entry: GalleryEntry) -> None:
        run = self._database.execute
        if self.has_photo(entry.photo) or self.photo_with(entry.digest):
            raise ValueError(
                f"gallery: {self.path} holds a photo named {entry.photo} or the same "
                "file under another name; remove the person first, or leave it out."
            )
        run("INSERT OR IGNORE INTO people (name) VALUES (?)", (entry.person,))
        embedding = entry.features.embeddings.astype(np.float32).tobytes()
        values = entry.photo, entry.digest, entry.num_images, embedding
        photo = run(
            "INSERT INTO photos (person, name, digest, added, num_images, embedding, "
            "checksum) SELECT id, ?, ?, datetime('now'), ?, ?, ? FROM people "
            "WHERE name = ?",
            (*values, zlib.crc32(embedding), entry.person),
        ).lastrowid
        if self.header.patches != "none":
            keypoints = entry.features.keypoints.astype(np.float32).tobytes()
            data = pack(entry.features.patches, self.header.patches)
            row = (photo, keypoints, data, zlib.crc32(keypoints + data))
            run("INSERT INTO patches VALUES (?, ?, ?, ?)", row)

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


class StoredField:
    """Patches [G, N, C] or keypoints [G, K, 2] of a gallery, read when indexed."""

    def __init__(
        self, gallery: Gallery, ids: np.ndarray, names: Sequence[str], number: int
    ):
        self._gallery, self._ids, self._names = gallery, ids, names
        self._number = number  # 0: the patches, 1: the keypoints
        self.shape = (len(ids), *gallery.shapes[number])

    def __len__(self) -> int:
        """G."""
        return len(self._ids)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """float32 [..., N, C] or [..., K, 2] of rows [...]; each is read once."""
        known, at = np.unique(rows, return_inverse=True)
        read = [
            self._gallery.read_patches(self._ids[row], self._names[row])[self._number]
            for row in known
        ]
        return np.stack(read)[at.reshape(np.shape(rows))]
