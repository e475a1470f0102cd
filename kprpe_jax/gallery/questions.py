"""What is asked of a gallery: a face, or the faces of a folder or a video, fused."""

import itertools
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import jax

from kprpe_jax.core.features import Features, concatenate, take
from kprpe_jax.data.importers.record import RejectedRecord
from kprpe_jax.data.left_out import faces_left_out
from kprpe_jax.data.read_photos import EMPTY_FOLDER, FoundPhotos, is_video
from kprpe_jax.fusion.files import FusionFile
from kprpe_jax.gallery.enroll import check_skip
from kprpe_jax.gallery.fused_photos import fuse_photos
from kprpe_jax.gallery.photos import EmbeddedPhoto, as_text, average

Box = tuple[float, float, float, float]


class Question(NamedTuple):
    """One question, or why there is none.

    Attributes:
      photo: name, with its parent folder.
      box: (left, top, right, bottom) in pixels of the photo; None where there is none.
      features: [1, ...]; None where no face can be asked.
      reason: why not.
      notes: what else is worth telling of the photo.
    """

    photo: str
    box: Box | None = None
    features: Features | None = None
    reason: str | None = None
    notes: Sequence[str] = ()


def photo_questions(photos: Iterable[EmbeddedPhoto]) -> Iterator[Question]:
    """Each face of each photo alone."""
    for photo in photos:
        if photo.features is None:
            yield Question(_shown_name(photo), reason=photo.faces.reasons[0])
            continue
        for number in range(len(photo.faces.faces)):
            features = take(photo.features, slice(number, number + 1))
            name, box = _shown_name(photo), _pixels(photo, number)
            yield Question(name, box, features, notes=photo.faces.notes)


def folder_questions(
    photos: Iterable[EmbeddedPhoto], fusion: FusionFile | None = None
) -> Iterator[Question]:
    """All faces of each folder, and of each video, as one.

    Args:
      photos: those of a folder side by side.
      fusion: what makes one of several; None = `photos.average`. A fusion reads the
        fields `fused_photos.FUSED_FIELDS`.
    """

    def key(photo: EmbeddedPhoto) -> pathlib.Path:
        path = photo.file.path.absolute()
        return path if is_video(path) else path.parent

    for path, group in itertools.groupby(photos, key):
        reasons: list[str] = []
        noted: dict[str, list[str]] = {}  # what is worth telling -> of which photos
        group = _gather(group, reasons, noted)
        one = _average(group) if fusion is None else fuse_photos(fusion, group)[0]
        if one is None:
            yield Question(folder_name(path), reason=reasons[0])
            continue
        notes = [
            f"{names[0] if len(names) == 1 else f'{len(names)} photos'}: {note}"
            for note, names in noted.items()
        ]
        features = jax.tree.map(lambda x: x[None], one)
        yield Question(folder_name(path), features=features, notes=notes)


def empty_questions(found: FoundPhotos, on_error: str) -> Iterator[Question]:
    """The folders of a folder without a photo; they have no answer, or are refused."""
    for name in found.empty:
        check_skip(RejectedRecord(name, *EMPTY_FOLDER), on_error)
        path = found.path.absolute() / name
        yield Question(folder_name(path), reason=EMPTY_FOLDER[1])


def note_left_out(
    photos: Iterable[EmbeddedPhoto], left_out: list[RejectedRecord], on_error: str
) -> Iterator[EmbeddedPhoto]:
    """The photos as they are; what is left out of them is noted, or refused."""
    for photo in photos:
        for row in faces_left_out(photo.faces, photo.name):
            check_skip(row, on_error)
            left_out.append(row)
        yield photo


def folder_name(path: pathlib.Path) -> str:
    """Name of a folder or a video with that of its folder."""
    return as_text(f"{path.parent.name}/{path.name}")


def _gather(
    photos: Iterable[EmbeddedPhoto], reasons: list[str], noted: dict[str, list[str]]
) -> Iterator[EmbeddedPhoto]:
    """The photos as they are; takes why they show no face, and their notes."""
    for photo in photos:
        reasons += photo.faces.reasons
        for note in photo.faces.notes:
            noted.setdefault(note, []).append(photo.faces.name)
        yield photo


def _average(photos: Iterable[EmbeddedPhoto]) -> Features | None:
    """`photos.average` of all faces; None where there is none."""
    parts = [photo.features for photo in photos if photo.features is not None]
    return average(concatenate(parts)) if parts else None


def _shown_name(photo: EmbeddedPhoto) -> str:
    """Name of a photo or frame, with the folder in which its file lies."""
    return as_text(f"{photo.file.path.absolute().parent.name}/{photo.faces.name}")


def _pixels(photo: EmbeddedPhoto, number: int) -> Box | None:
    """Box of a face in pixels, cut to the photo; None: the whole photo is the face."""
    box = photo.faces.boxes[number]
    if (box == [0, 0, 1, 1]).all():
        return None
    height, width = photo.faces.photo.shape[:2]
    pixels = box.clip(0, 1) * [width, height, width, height]
    return tuple(round(float(x), 1) for x in pixels)
