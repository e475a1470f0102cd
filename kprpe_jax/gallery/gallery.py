"""A gallery on disk: people, and the features of their photos."""

import json
import os
import pathlib
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.core.features import Features
from kprpe_jax.detection.detector import Detector
from kprpe_jax.gallery.database import GalleryDatabase
from kprpe_jax.gallery.header import (
    GalleryContents,
    GalleryEntry,
    GalleryHeader,
    NetworkSource,
)
from kprpe_jax.gallery.packing import KINDS, pack, unpack


class Gallery:
    """An open gallery; use it in a `with` statement."""

    def __init__(self, path: str | os.PathLike, *, create: GalleryHeader | None = None):
        """Open a gallery, or make an empty one where none is and `create` is given.

        A new gallery appears on the disk when the first people are added. One that is
        there remembers from `create` where its networks lie now.

        Args:
          path: of the file.
          create: from `describe_gallery`; checked where there is a gallery.
        Raises: ValueError: no gallery there, not a gallery, damaged, of another format;
          `create` is of another recognizer, detector or fusion, or keeps patches
          otherwise.
        """
        if create is not None and create.patches not in KINDS:
            raise ValueError(
                f"gallery: unknown kind of patches {create.patches!r}; use one of "
                f"{KINDS}."
            )
        self.path = pathlib.Path(path)
        self._database = GalleryDatabase(path, create)
        try:
            if create is not None:
                self._compare(create)
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
        return self._database.rows("SELECT count(*) FROM photos")[0][0]

    @property
    def header(self) -> GalleryHeader:
        """What all features were made with."""
        return self._database.header

    def check(self, other: Recognizer | GalleryHeader) -> None:
        """Refuse the features of another recognizer.

        Raises: ValueError: the gallery was made by another network, other weights, or
          under another input contract.
        """
        own, header = self.header.recognizer, self.header
        theirs = other.recognizer if isinstance(other, GalleryHeader) else other
        if other.input_spec != header.input_spec:
            raise ValueError(
                f"gallery: the faces of {self.path} are {header.input_spec.describe()} "
                f"({own.name}), those of {theirs.name} are "
                f"{other.input_spec.describe()}: their features cannot be compared; "
                "give the recognizer that it was made with, or enroll everybody anew."
            )
        fingerprint = theirs.fingerprint
        if fingerprint != own.fingerprint:
            raise ValueError(
                f"gallery: {self.path} was made by {own.name} "
                f"({own.fingerprint[:12]}), not by {theirs.name} "
                f"({fingerprint[:12]}): their features cannot be compared; give the "
                "recognizer that it was made with, or enroll everybody anew."
            )

    def check_detector(self, other: Detector | NetworkSource | None) -> None:
        """Refuse another detector, with the options with which its own was loaded.

        Args:
          other: None, or any where the gallery knows none, is accepted: photos may be
            aligned faces on one side alone.
        Raises: ValueError: the gallery's faces were detected by another one.
        """
        own = self.header.detector
        if own is None or other is None or own.fingerprint == other.fingerprint:
            return
        raise ValueError(
            f"gallery: the faces of {self.path} were detected by {own.name} "
            f"({own.fingerprint[:12]}), not by {other.name} "
            f"({other.fingerprint[:12]}), which frames faces otherwise; give that "
            "--detector, or none."
        )

    def check_fusion(self, other: NetworkSource | None) -> None:
        """Refuse entries of another fusion.

        Raises: ValueError: the gallery's entries were fused by another model.
        """
        own = self.header.fusion
        told = [
            f"fused by {x.name} ({x.fingerprint[:12]})" if x else "of a photo each"
            for x in (own, other)
        ]
        if (own and own.fingerprint) != (other and other.fingerprint):
            raise ValueError(
                f"gallery: the entries of {self.path} are {told[0]}, not {told[1]}: "
                "they cannot be compared; give that --fusion, or enroll everybody anew."
            )

    def photo_with(self, digest: str) -> str | None:
        """Name of the photo with these bytes, if it is enrolled."""
        query = "SELECT name FROM photos WHERE digest = ?"
        found = self._database.rows(query, (digest,))
        return found[0][0] if found else None

    def has_person(self, name: str) -> bool:
        """Whether somebody of this name is enrolled."""
        query = "SELECT count(*) FROM people WHERE name = ?"
        return bool(self._database.rows(query, (name,))[0][0])

    def has_photo(self, name: str) -> bool:
        """Whether a photo of this name is enrolled."""
        query = "SELECT count(*) FROM photos WHERE name = ?"
        return bool(self._database.rows(query, (name,))[0][0])

    def add(self, entries: Sequence[GalleryEntry]) -> None:
        """Add photos, all or none of them.

        Raises: ValueError: a name or a file that is there already; features of another
          shape, not finite, or without a face (zeros).
        """
        for entry in entries:
            self._check(entry)
        with self._database.transaction():
            for entry in entries:
                self._add(entry)

    def add_new(self, entries: Sequence[GalleryEntry]) -> list[GalleryEntry]:
        """Add the photos of which neither the name nor the file is there yet.

        Another command may have added some since it was asked for them.

        Returns: the others, which were there.
        Raises: ValueError: as `add`, and nothing is added.
        """
        for entry in entries:
            self._check(entry)
        others = []
        with self._database.transaction():
            for entry in entries:
                if self._has(entry):
                    others.append(entry)
                else:
                    self._add(entry)
        return others

    def people(self) -> dict[str, int]:
        """Names and how many photos each has, by name."""
        query = (
            "SELECT people.name, count(*) FROM photos JOIN people "
            "ON people.id = photos.person GROUP BY people.id ORDER BY people.name"
        )
        return dict(self._database.rows(query))

    def metadata(self) -> dict[str, dict[str, str]]:
        """Keys and values of the people who have any."""
        query = "SELECT name, metadata FROM people WHERE metadata <> '{}' ORDER BY name"
        found = self._database.rows(query)
        return {name: json.loads(text) for name, text in found}

    def set_metadata(self, people: Mapping[str, Mapping[str, str]]) -> None:
        """Replace the keys and values of people, of all or of none of them.

        Raises: ValueError: somebody who is not there.
        """
        if not people:  # a transaction would write an empty gallery
            return
        with self._database.transaction():
            for name, values in people.items():
                text = json.dumps(dict(values), ensure_ascii=False)
                statement = "UPDATE people SET metadata = ? WHERE name = ?"
                if not self._database.run(statement, (text, name)).rowcount:
                    raise self._nobody(name)

    def remove_people(self, names: Sequence[str]) -> int:
        """Remove people with all their photos, all or none of them.

        Returns: how many photos went.
        Raises: ValueError: somebody who is not there, or is named twice.
        """
        before = len(self)
        with self._database.transaction():
            for name in names:
                self._remove(name)
        return before - len(self)

    def replace_photos(
        self, person: str, entries: Sequence[GalleryEntry], *, photo: str | None = None
    ) -> int:
        """Remove photos of a person and add these, all or nothing.

        Args:
          person: somebody who is there; the metadata stay.
          entries: at least one, all of this person.
          photo: the one to remove; None = all of the person.
        Returns: how many photos went.
        Raises: ValueError: nobody of this name, no such photo of theirs; as `add`.
        """
        for entry in entries:
            self._check(entry)
        with self._database.transaction():
            names = self.check_photo(person, photo)
            for name in names:
                self._database.run("DELETE FROM photos WHERE name = ?", (name,))
            for entry in entries:
                self._add(entry)
        return len(names)

    def check_photo(self, person: str, photo: str | None) -> list[str]:
        """Names of the photos of a person that are meant: this one, or all with None.

        Raises: ValueError: nobody of this name, no such photo of theirs.
        """
        names = [name for name, *_ in self.photos_of(person)]
        if photo is None:
            return names
        if photo not in names:
            raise ValueError(
                f"gallery: {self.path} holds no photo {photo!r} of {person}; `gallery "
                "show` names all."
            )
        return [photo]

    def photos_of(self, name: str) -> list[tuple[str, int, str]]:
        """Photos of a person: names, numbers of images, and when each was added (UTC).

        Raises: ValueError: nobody of this name.
        """
        query = (
            "SELECT photos.name, num_images, added FROM photos JOIN people "
            "ON people.id = photos.person WHERE people.name = ? ORDER BY photos.id"
        )
        rows = self._database.rows(query, (name,))
        if not rows:
            raise self._nobody(name)
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
        ids, people, photos, counts = [], [], [], []
        known: dict[str, str] = {}  # one text for each person
        data = bytearray()  # no second copy of all embeddings
        for row in self._database.stream(query):
            number, person, photo, count, blob, checksum = row
            self._check_blob(photo, blob, checksum, 4 * self.header.embed_dim)
            ids.append(number)
            people.append(known.setdefault(person, person))
            photos.append(photo)
            counts.append(count)
            data += blob
        if not ids:
            raise ValueError(f"gallery: {self.path} is empty; enroll people first.")
        embeddings = np.frombuffer(data, np.float32).reshape(len(ids), -1)
        features = Features(embeddings)
        if self.header.patches != "none":
            stored = (StoredField(self, np.array(ids), photos, i) for i in (0, 1))
            features = Features(embeddings, next(stored), keypoints=next(stored))
        counts = np.array(counts)
        return GalleryContents(people, photos, counts, features, self.metadata())

    def read_patches(self, photo_id: int, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Patches float32 [N, C] and keypoints float32 [K, 2] of one photo.

        Raises: ValueError: they are damaged or gone.
        """
        query = "SELECT keypoints, data, checksum FROM patches WHERE photo = ?"
        found = self._database.rows(query, (int(photo_id),))
        shape, points = self.shapes
        *blobs, checksum = found[0] if found else (b"", b"", 0)
        sizes = 8 * points[0], len(pack(np.zeros(shape), self.header.patches))
        self._check_blob(name, b"".join(blobs), checksum, sum(sizes))
        keypoints = np.frombuffer(blobs[0], np.float32).reshape(points)
        return unpack(blobs[1], self.header.patches, shape), keypoints

    @property
    def shapes(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Shapes (N, C) of a photo's patches and (K, 2) of its keypoints."""
        rows, columns = self.header.grid
        return (rows * columns, self.header.channels), (self.header.num_keypoints, 2)

    def _compare(self, create: GalleryHeader) -> None:
        """Refuse another header; learn where the networks were loaded from."""
        self.check(create)
        self.check_detector(create.detector)
        self.check_fusion(create.fusion)
        own = self.header
        if create.patches != own.patches:
            raise ValueError(
                f"gallery: {self.path} keeps patches as {own.patches}; got "
                f"{create.patches}; use the same for all."
            )
        header = own._replace(detector=create.detector or own.detector)
        if create.fusion is not None and create.fusion.spec:
            header = header._replace(fusion=create.fusion)
        if create.recognizer.spec:
            header = header._replace(recognizer=create.recognizer)
        if header != own and len(self):
            with self._database.transaction():
                self._database.write_header(header)

    def _nobody(self, name: str) -> ValueError:
        return ValueError(
            f"gallery: {self.path} holds nobody named {name!r}; correct the name."
        )

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
        found = self._database.run("DELETE FROM people WHERE name = ?", (name,))
        if not found.rowcount:
            raise ValueError(
                f"gallery: {self.path} holds nobody named {name!r}, or no more; nobody "
                "was removed; correct the name."
            )

    def _has(self, entry: GalleryEntry) -> bool:
        """Whether a photo of this name or of this file is there."""
        return self.has_photo(entry.photo) or self.photo_with(entry.digest) is not None

    def _add(self, entry: GalleryEntry) -> None:
        run = self._database.run
        if self._has(entry):
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
