"""WIDER FACE with five landmarks: the label file that RetinaFace's authors made."""

import io
import os
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

from kprpe_jax.data.importers.decode import decode_rgb
from kprpe_jax.data.importers.record import (
    Record,
    RecordSource,
    RejectedRecord,
    file_state,
    read_image,
)

FRAME = 288  # pixels; a face's box is the middle half of it
_LEAST_SIDE = 20  # pixels of the photo; there is nothing to learn from less
_KEPT = 8  # decoded photos


class Face(NamedTuple):
    """A labeled face.

    Attributes:
      photo: path below the images' folder.
      line: of the label file, from 1.
      box: (left, top, width, height), pixels.
      points: float32 [5, 2], pixels; None where they are not labeled.
    """

    photo: str
    line: int
    box: tuple[float, float, float, float]
    points: np.ndarray | None


def open_wider_face(path: str | os.PathLike) -> RecordSource:
    """Open a label file: `# photo`, then a line for each of its faces.

    A line is `left top width height`, then five times `x y flag`, all -1 where the face
    has no landmarks, then anything. There is a row for each face with landmarks whose
    box is at least 20 pixels wide and high; others are ignored. Its image is the
    square of twice the box's longer side around the box, resized to 288 x 288 pixels
    and black outside of the photo, as JPEG: a photo may hold a hundred faces.

    Args:
      path: the file, or the folder of `label.txt`; photos lie in `images` beside it.
    Raises: ValueError: no such file, no face with landmarks in it.
    """
    path = os.fspath(path)
    path = os.path.join(path, "label.txt") if os.path.isdir(path) else path
    if not os.path.isfile(path):
        raise ValueError(
            f"{path} must be a label file; got no such file; give its path"
        )
    faces = list(_wanted(path))
    if not faces:
        raise ValueError(
            f"{path} must hold faces with landmarks; got none; give "
            "the file with five points for each face"
        )
    root = os.path.join(os.path.dirname(os.path.abspath(path)), "images")

    def read(start: int) -> Iterator[Record | RejectedRecord]:
        photos: dict[str, np.ndarray | str] = {}
        for face in faces[start:]:
            if isinstance(face, RejectedRecord):
                yield face
                continue
            if face.photo not in photos:
                if len(photos) == _KEPT:
                    photos.pop(next(iter(photos)))
                photos[face.photo] = _read_photo(root, face.photo)
            yield _record(face, photos[face.photo])

    return RecordSource(read, state=file_state(path), count=len(faces))


def _wanted(path: str) -> Iterator[Face | RejectedRecord]:
    photo = None
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        for line, text in enumerate(file, 1):
            if text.startswith("#"):
                photo = text[1:].strip()
            elif text.strip():
                face = _parse(photo, line, text)
                if isinstance(face, RejectedRecord):
                    yield face
                elif face.points is not None and min(face.box[2:]) >= _LEAST_SIDE:
                    yield face


def _parse(photo: str | None, line: int, text: str) -> Face | RejectedRecord:
    try:
        numbers = [float(word) for word in text.split()]
    except ValueError:
        numbers = []
    if photo is None or len(numbers) < 19 or not np.isfinite(numbers[:19]).all():
        return RejectedRecord(
            f"line {line}",
            "wrong line",
            "must be a box and five times x, y and a flag, below the line of its "
            f"photo; got {text.strip()[:40]!r}",
        )
    points = np.float32(numbers[4:19]).reshape(5, 3)
    known = points[:, :2].min() >= 0
    return Face(photo, line, tuple(numbers[:4]), points[:, :2] if known else None)


def _read_photo(root: str, name: str) -> np.ndarray | RejectedRecord:
    path = os.path.normpath(os.path.join(root, name))
    if os.path.commonpath([root, path]) != root:
        return RejectedRecord(name, "wrong path", f"must stay inside {root}")
    encoded = read_image(path, name)
    if isinstance(encoded, RejectedRecord):
        return encoded
    try:
        return decode_rgb(encoded)
    except ValueError as e:
        return RejectedRecord(name, "broken image", str(e))


def _record(face: Face, photo: np.ndarray | RejectedRecord) -> Record | RejectedRecord:
    key = f"{face.photo}#{face.line}"
    if isinstance(photo, RejectedRecord):
        return photo._replace(key=key)
    left, top, width, height = face.box
    side = 2 * max(width, height)
    corner = np.array([left + width / 2, top + height / 2]) - side / 2
    # Pillow's box may leave the photo only in a crop, which takes whole pixels.
    first = np.floor(corner).astype(int)
    whole = int(np.ceil(side)) + 1
    cut = Image.fromarray(photo).crop((*first, *(first + whole)))
    inner = (*(corner - first), *(corner - first + side))
    cut = cut.resize((FRAME, FRAME), Image.Resampling.BILINEAR, box=inner)
    file = io.BytesIO()
    cut.save(file, "jpeg", quality=95)
    points = ((face.points - corner) / side).astype(np.float32)
    return Record(key, file.getvalue(), 0, keypoints=points)
