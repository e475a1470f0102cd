"""Enroll people: the features of their photos into a gallery."""

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.core.features import Features, concatenate
from kprpe_jax.data.importers.record import RejectedRecord
from kprpe_jax.data.left_out import faces_left_out, make_account
from kprpe_jax.data.read_photos import PhotoPath, find_photos, too_large
from kprpe_jax.detection.detector import Detector
from kprpe_jax.gallery import photos as photo_files
from kprpe_jax.gallery.gallery import Gallery
from kprpe_jax.gallery.header import GalleryEntry
from kprpe_jax.gallery.photos import PhotoFile, average, embed_photos, list_photos

BATCH = 32  # photos of a transaction
NAME_IN_USE = ("name in use", "another photo of this name is enrolled; rename it")


class EnrollResult(NamedTuple):
    """What an enrollment did.

    Attributes:
      added: photos that are new.
      known: photos that were there.
      left_out: everything else that was given.
      notes: name -> what else is worth telling: it was turned, others are as large.
    """

    added: int
    known: int
    left_out: list[RejectedRecord]
    notes: Mapping[str, str] = {}


def enroll(
    gallery: Gallery,
    photos: PhotoPath,
    recognizer: Recognizer,
    detector: Detector | None = None,
    *,
    faces: str = "center",
    on_error: str = "fail",
    batch_size: int = photo_files.BATCH,
    progress: Callable[[Sequence], Iterable] = iter,
) -> EnrollResult:
    """Add the people of photos to a gallery, a batch at a time.

    The frames of a video are one photo, `photos.average` of their faces. A killed
    enrollment goes on when it is called again: photos that are there are passed over.
    Several may enroll the same photos at once.

    Args:
      gallery: open, of this recognizer.
      photos: as `list_photos` takes them.
      recognizer: the network.
      detector: None = photos are aligned faces already.
      faces: of a photo: `center` or `largest`.
      on_error: at a photo that cannot be read, shows no face, or has the name or the
        file of another one: `fail`, or `skip` it.
      batch_size: photos at once.
      progress: wraps the list of files, as tqdm does.
    Raises: ValueError: another recognizer's gallery; a bad photo with `fail`. Batches
      before it stay.
    """
    gallery.check(recognizer)
    given = find_photos(photos)
    left_out = given.passed_over()
    known, added, batch = 0, 0, []
    taken: dict[str, str] = {}  # digest -> photo, of those that may not be stored yet
    digests: dict[str, str] = {}  # photo -> digest

    def skip(row: RejectedRecord) -> None:
        check_skip(row, on_error)
        left_out.append(row)

    def is_new(name: str, digest: str) -> bool:
        nonlocal known
        same = gallery.photo_with(digest) or taken.get(digest)
        if same == name:
            known += 1
        elif same is not None:
            reason = f"it is the same file as {same}; enroll it once"
            skip(RejectedRecord(name, "same file", reason))
        elif gallery.has_photo(name):
            skip(RejectedRecord(name, *NAME_IN_USE))
        else:
            return True
        return False

    def new_files() -> Iterator[PhotoFile]:
        for file in progress(list_photos(given)):
            digest = digest_file(file)
            if is_new(file.name, digest):
                taken[digest], digests[file.name] = file.name, digest
                yield file

    def add(batch: list[GalleryEntry]) -> None:
        nonlocal added
        others = gallery.add_new(batch)  # that another command has just added
        added += len(batch) - len(others)
        for entry in others:
            del taken[entry.digest]
            if is_new(entry.photo, entry.digest):  # and removed again
                add([entry])

    notes: dict[str, str] = {}
    options = dict(faces=faces, batch_size=batch_size, notes=notes)
    found = _embed_files(new_files(), recognizer, detector, **options)
    for file, features, count, lost in found:
        if features is None:
            del taken[digests[file.name]]
            skip(lost)
            continue
        digest = digests[file.name]
        batch.append(GalleryEntry(file.person, file.name, digest, features, count))
        if len(batch) == BATCH:
            add(batch)
            batch = []
    if batch:
        add(batch)
    return EnrollResult(added, known, left_out, notes)


def replace(
    gallery: Gallery,
    person: str,
    photos: PhotoPath,
    recognizer: Recognizer,
    detector: Detector | None = None,
    *,
    photo: str | None = None,
    faces: str = "center",
    on_error: str = "fail",
    batch_size: int = photo_files.BATCH,
    progress: Callable[[Sequence], Iterable] = iter,
) -> EnrollResult:
    """Replace all photos of a person, or one, by others, in one transaction.

    Args:
      person: somebody who is there; all photos become this person's.
      photo: name of the one to replace; None = all.
      gallery, photos, recognizer, detector, faces, on_error, batch_size, progress: as
        `enroll`.
    Raises: ValueError: nobody or no photo of this name; no usable photo; as `enroll`.
      Then nothing has changed.
    """
    gallery.check(recognizer)
    gallery.check_photo(person, photo)
    given = find_photos(photos)
    entries, left_out, notes = [], given.passed_over(), {}
    options = dict(faces=faces, batch_size=batch_size, notes=notes)
    files = progress(list_photos(given))
    for file, features, count, lost in _embed_files(
        files, recognizer, detector, **options
    ):
        if features is not None:
            name = file.name if "/" in file.name else f"{person}/{file.name}"
            entry = GalleryEntry(person, name, digest_file(file), features, count)
            entries.append(entry)
        else:
            check_skip(lost, on_error)
            left_out.append(lost)
    if not entries:
        raise ValueError(
            f"--photos: no photo of {given.path} shows a usable face; {person} stays "
            "as before; give other photos."
        )
    gallery.replace_photos(person, entries, photo=photo)
    return EnrollResult(len(entries), 0, left_out, notes)


def check_skip(row: RejectedRecord, on_error: str) -> None:
    """Raise ValueError for what would be left out, where it is to fail."""
    if on_error == "fail":
        raise ValueError(
            f"{row.key}: {row.reason}; or leave such photos out with --on-error skip"
        )


def _embed_files(
    files: Iterable[PhotoFile],
    recognizer: Recognizer,
    detector: Detector | None,
    notes: dict[str, str],
    **options: Any,
) -> Iterator[tuple[PhotoFile, Features | None, int, RejectedRecord | None]]:
    """Features of each photo and of each video, of how many images, or why none.

    `notes` takes what else is worth telling of each.
    """
    embedded = embed_photos(files, recognizer, detector, **options)
    for file, images in itertools.groupby(embedded, lambda image: image.file):
        parts, lost = [], []
        for image in images:
            lost += faces_left_out(image.faces, file.name)
            if image.faces.notes:  # of a video, of its last such frame
                notes[file.name] = "; ".join(image.faces.notes)
            if image.features is not None:
                parts.append(image.features)
        if not parts:
            yield file, None, 0, lost[0]
            continue
        if lost:  # frames of a video
            why = make_account(lost, used=len(parts)).describe()
            notes[file.name] = "; ".join(filter(None, (notes.get(file.name), why)))
        yield file, average(concatenate(parts)), len(parts), None


def digest_file(file: PhotoFile) -> str:
    """SHA-256 of a file's bytes; of its name where it cannot be read."""
    of_name = hashlib.sha256(file.name.encode()).hexdigest()
    try:
        if too_large(file.path):
            return of_name
        with file.path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return of_name
