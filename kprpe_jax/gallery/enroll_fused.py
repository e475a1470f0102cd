"""Enroll people with one entry each: all their photos and videos, fused."""

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.data.importers.record import RejectedRecord
from kprpe_jax.data.left_out import faces_left_out
from kprpe_jax.data.read_photos import (
    EMPTY_FOLDER,
    FoundPhotos,
    PhotoPath,
    find_photos,
)
from kprpe_jax.detection.detector import Detector
from kprpe_jax.fusion.files import FusionFile
from kprpe_jax.gallery import photos as photo_files
from kprpe_jax.gallery.enroll import check_skip, digest_file
from kprpe_jax.gallery.fused_photos import FUSED_FIELDS, fuse_photos
from kprpe_jax.gallery.gallery import Gallery
from kprpe_jax.gallery.header import GalleryEntry
from kprpe_jax.gallery.photos import (
    EmbeddedPhoto,
    PhotoFile,
    embed_photos,
    list_photos,
)


class EnrolledPeople(NamedTuple):
    """What an enrollment of fused people did.

    Attributes:
      added: person -> images of the entry, of those who are new.
      known: people who were there, of the same files -> how many these are.
      replaced: person -> images of the entry before and now.
      without: people without a usable face, whose entry, if any, stays.
      left_out: everything else that was given.
      notes: name -> what else is worth telling: it was turned, others are as large.
    """

    added: dict[str, int]
    known: dict[str, int]
    replaced: dict[str, tuple[int, int]]
    without: list[str]
    left_out: list[RejectedRecord]
    notes: dict[str, str]

    @property
    def used(self) -> int:
        """Photos and frames that were fused."""
        return sum(self.added.values()) + sum(now for _, now in self.replaced.values())


def enroll_fused(
    gallery: Gallery,
    photos: PhotoPath,
    recognizer: Recognizer,
    file: FusionFile,
    detector: Detector | None = None,
    *,
    faces: str = "center",
    on_error: str = "fail",
    batch_size: int = photo_files.BATCH,
    progress: Callable[[Sequence], Iterable] = iter,
) -> EnrolledPeople:
    """Add one entry for each person in a folder: their photos and videos, fused.

    An entry is of exactly the files that are given: a person who is there of the same
    files is passed over, one who is there of others gets a new entry in place of the
    old one. A killed enrollment goes on when it is called again.

    Args:
      gallery: open, of this recognizer and fusion.
      photos, recognizer, detector, faces, batch_size, progress: as `enroll.enroll`.
      file: the fusion.
      on_error: at a photo that cannot be read or shows no face, an empty folder, a
        person without a usable face, or a file of two people: `fail`, or `skip` it.
    Raises: ValueError: another recognizer's gallery; as `on_error` says. Entries of the
      people before stay.
    """
    given = find_photos(photos)
    return enroll_files(
        gallery,
        list_photos(given),
        recognizer,
        file,
        detector,
        given=given,
        faces=faces,
        on_error=on_error,
        batch_size=batch_size,
        progress=progress,
    )


def enroll_files(
    gallery: Gallery,
    files: Sequence[PhotoFile],
    recognizer: Recognizer,
    file: FusionFile,
    detector: Detector | None = None,
    *,
    given: FoundPhotos | None = None,
    faces: str = "center",
    on_error: str = "fail",
    batch_size: int = photo_files.BATCH,
    progress: Callable[[Sequence], Iterable] = iter,
) -> EnrolledPeople:
    """As `enroll_fused`, of files whose people are known.

    Args:
      files: in any order.
      given: what was found beside them; an empty folder is a person without a photo.
    """
    gallery.check(recognizer)
    result = EnrolledPeople({}, {}, {}, [], [], {})
    people: dict[str, list[PhotoFile]] = {}
    for photo in files:
        people.setdefault(photo.person, []).append(photo)
    digests: dict[str, str] = {}  # person -> digest of the entry
    owners: dict[str, PhotoFile] = {}  # digest of a file -> the first of its kind

    def skip(row: RejectedRecord) -> None:
        check_skip(row, on_error)
        result.left_out.append(row)

    def own_files(person: str) -> list[tuple[str, PhotoFile]]:
        """Digests and files of a person that are nobody else's."""
        own = []
        for photo in people[person]:
            digest = digest_file(photo)
            first = owners.setdefault(digest, photo)
            if first.person == person:
                own.append((digest, photo))
            else:
                reason = f"it is the same file as {first.name}; enroll it once"
                skip(RejectedRecord(photo.name, "same file", reason))
        return own

    def new_files() -> Iterator[PhotoFile]:
        for person in progress(list(people)):
            own = own_files(person)
            digest = digest_files(digest for digest, _ in own)
            if gallery.photo_with(digest) == entry_name(person):
                result.known[person] = len(own)
                continue
            if own:
                digests[person] = digest
                yield from (photo for _, photo in own)
            else:
                result.without.append(person)

    if given is not None:
        result.left_out.extend(given.others)
        for folder in given.empty:
            skip(RejectedRecord(folder, *EMPTY_FOLDER))
            result.without.append(folder)
    fields = FUSED_FIELDS
    if gallery.header.patches != "none":
        fields = (*FUSED_FIELDS, "patches")
    options = dict(faces=faces, batch_size=batch_size, fields=fields)
    embedded = embed_photos(new_files(), recognizer, detector, **options)

    def told(group: Iterable[EmbeddedPhoto]) -> Iterator[EmbeddedPhoto]:
        for photo in group:
            for row in faces_left_out(photo.faces, photo.name):
                skip(row)
            if photo.faces.notes:
                result.notes[photo.name] = "; ".join(photo.faces.notes)
            yield photo

    for person, group in itertools.groupby(embedded, lambda photo: photo.file.person):
        features, count = fuse_photos(file, told(group))
        if features is None:
            result.without.append(person)
            continue
        name = entry_name(person)
        entry = GalleryEntry(person, name, digests[person], features, count)
        store_entry(gallery, entry, result)
    return result


def replace_fused(
    gallery: Gallery,
    person: str,
    photos: PhotoPath,
    recognizer: Recognizer,
    file: FusionFile,
    detector: Detector | None = None,
    **options: Any,
) -> EnrolledPeople:
    """Replace the entry of a person by one of all these photos and videos.

    Args:
      person: somebody who is there; all photos become this person's.
      gallery, photos, recognizer, file, detector: as `enroll_fused`.
      options: further ones of `enroll_fused`.
    Raises: ValueError: nobody of this name; no usable photo; as `enroll_fused`. Then
      nothing has changed.
    """
    gallery.check_photo(person, None)
    given = find_photos(photos)
    files = [photo._replace(person=person) for photo in list_photos(given)]
    result = enroll_files(gallery, files, recognizer, file, detector, **options)
    result.left_out.extend(given.passed_over())
    if result.without:
        raise ValueError(
            f"--photos: no photo of {given.path} shows a usable face; {person} stays "
            "as before; give other photos."
        )
    return result


def store_entry(gallery: Gallery, entry: GalleryEntry, result: EnrolledPeople) -> None:
    """Add the only entry of a person, or put it in place of theirs, and note it."""
    person, count = entry.person, entry.num_images
    if not gallery.has_person(person) and not gallery.add_new([entry]):
        result.added[person] = count
    elif gallery.photo_with(entry.digest) == entry.photo:  # another was faster
        result.known[person] = count
    else:
        before = sum(images for _, images, _ in gallery.photos_of(person))
        gallery.replace_photos(person, [entry])
        result.replaced[person] = before, count


def entry_name(person: str) -> str:
    """Name of a person's only entry, where a photo's would be."""
    return f"{person}/fused"


def digest_files(digests: Iterable[str]) -> str:
    """SHA-256 of a set of files, whatever their names and order."""
    return hashlib.sha256("\n".join(["fused", *sorted(digests)]).encode()).hexdigest()
