"""Photos and videos to the features of their faces, in batches."""

import collections
import itertools
import os
import pathlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np

from kprpe_jax.alignment.photos import AlignedFace
from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.core.features import Features, take
from kprpe_jax.core.input_spec import to_bytes
from kprpe_jax.data.read_photos import PhotoPath, find_photos, read_files
from kprpe_jax.detection.detector import Detector
from kprpe_jax.detection.photo_faces import PhotoFaces, read_faces
from kprpe_jax.evaluation.embedding import embed, place

BATCH = 32  # photos and faces at once
FIELDS = ("embeddings", "patches", "keypoints")


class PhotoFile(NamedTuple):
    """A photo or a video of a person.

    Attributes:
      person: name: the folder of a folder of folders, otherwise the file's name without
        its ending and its number.
      name: of the file, below the folder that was named, or the file's own.
      path: of the file.
    """

    person: str
    name: str
    path: pathlib.Path


class EmbeddedPhoto(NamedTuple):
    """The faces of a photo, or of a frame of a video.

    Attributes:
      file: which it is, or is of.
      faces: where they are, and why there are none.
      features: [F, ...] of them; None where F = 0.
    """

    file: PhotoFile
    faces: PhotoFaces
    features: Features | None

    @property
    def name(self) -> str:
        """Of the photo or the frame, below the folder that was named."""
        return self.file.name + self.faces.name.removeprefix(self.file.path.name)


def list_photos(path: PhotoPath) -> list[PhotoFile]:
    """The photos and videos of a path, with the names of their people.

    Args:
      path: a photo, a video, a folder, or a folder of folders: one per person; or what
        `find_photos` found there.
    Raises: ValueError: no such path, or nothing in it.
    """
    photos, found = find_photos(path), []
    for file in photos.files:
        inside = pathlib.PurePosixPath(photos.name(file))
        person = re.sub(r"(?<=.)_\d+$", "", file.stem)
        if len(inside.parts) > 1:
            person = inside.parts[0]
        found.append(PhotoFile(name_of(person), as_text(inside.as_posix()), file))
    return found


def name_of(person: str) -> str:
    """A person's name as galleries keep it: letters and accents composed (NFC)."""
    return unicodedata.normalize("NFC", as_text(person))


def as_text(name: str) -> str:
    """A file's name as text; a byte that is no UTF-8 is written as \\xff."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def embed_photos(
    files: Iterable[PhotoFile],
    recognizer: Recognizer,
    detector: Detector | None = None,
    *,
    faces: str = "center",
    batch_size: int = BATCH,
    fields: Sequence[str] = FIELDS,
    mirror: str = "none",
) -> Iterator[EmbeddedPhoto]:
    """Detect, align and embed the faces of photos and videos, in batches.

    Args:
      files: from `list_photos`; asked for a few ahead, in the caller's thread.
      recognizer: the network.
      detector: None = photos are aligned faces already, as its input contract says; a
        network that reads keypoints is given the template's.
      faces: of a photo: `center`, `largest` or `all`.
      batch_size: photos, and faces, at once.
      fields, mirror: of `evaluation.embedding.embed`.
    Returns: every photo and every frame, in order.
    """
    order: collections.deque[PhotoFile] = collections.deque()

    def photos() -> Iterator[tuple[str, np.ndarray | str]]:
        for file, images in read_files((file, file.path) for file in files):
            for frame, photo in images:
                order.append(file)
                yield f"{file.path.name}{frame}", photo

    recognizer = place(recognizer)  # once, not for each batch
    spec = recognizer.input_spec
    results = read_faces(
        photos(), spec, detector, faces=faces, batch_size=min(batch_size, 8)
    )
    while chunk := list(itertools.islice(results, batch_size)):
        aligned = [face for result in chunk for face in result.faces]
        options = dict(fields=fields, mirror=mirror)
        features = None
        if aligned:
            features = embed_faces(recognizer, aligned, batch_size, **options)
        first = 0
        for result in chunk:
            end = first + len(result.faces)
            own = take(features, slice(first, end)) if end > first else None
            first = end
            yield EmbeddedPhoto(order.popleft(), result, own)


def embed_faces(
    recognizer: Recognizer,
    faces: Sequence[AlignedFace],
    batch_size: int = BATCH,
    *,
    fields: Sequence[str] = FIELDS,
    mirror: str = "none",
) -> Features:
    """Features of aligned faces, on the host.

    Args:
      recognizer: the network.
      faces: at least one.
      batch_size: faces at once; the last batch is padded.
      fields, mirror: of `evaluation.embedding.embed`.
    """
    rows = [dict(image=to_bytes(x.image), keypoints=x.keypoints) for x in faces]
    # A few faces alone take a small batch; every device has a share.
    size = min(1 << (len(rows) - 1).bit_length(), batch_size)
    size = -(-size // jax.device_count()) * jax.device_count()
    return embed(recognizer, rows, batch_size=size, fields=fields, mirror=mirror)


def average(features: Features) -> Features:
    """One person's features of several images: the mean of the unit embeddings.

    Patches and keypoints are those of the image whose embedding is nearest to it. A
    single image stays as it is.

    Args:
      features: [F, ...], host arrays.
    Returns: the same fields of one image.
    """
    if len(features.embeddings) == 1:
        return take(features, 0)
    lengths = np.linalg.norm(features.embeddings, axis=1, keepdims=True)
    units = features.embeddings / np.maximum(lengths, 1e-12)
    mean = units.mean(0)
    nearest = take(features, int((units @ mean).argmax()))
    return nearest._replace(embeddings=mean)
