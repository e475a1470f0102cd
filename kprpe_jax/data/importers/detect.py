"""Keypoints by a detector, for images whose source has none."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator

import numpy as np

from kprpe_jax.data.importers.decode import decode_rgb
from kprpe_jax.data.importers.record import Record, RecordSource, RejectedRecord
from kprpe_jax.detection.detector import Detector
from kprpe_jax.detection.find_faces import find_faces, upright_points

_CHUNK = 128  # entries read together: their sizes may be mixed


def with_detected(
    source: RecordSource,
    detector: Detector,
    *,
    wanted: Callable[[Record], bool],
    batch_size: int = 32,
    faces: str = "center",
) -> RecordSource:
    """Fill in the keypoints of a source's images by a detector.

    An image without a face that passes `find_faces` gets NaN, which the import reports
    as missing landmarks.

    Args:
      source: the images.
      detector: the network.
      wanted: whether to detect in an image.
      batch_size: images at once.
      faces: of several faces in an image, the one at its "center", the "largest" or
        that of the best "score".
    Returns: the same source with more keypoints.
    """

    def read(start: int) -> Iterator[Record | RejectedRecord]:
        entries = source.read(start)
        while chunk := list(itertools.islice(entries, _CHUNK)):
            yield from _fill(chunk, detector, wanted, batch_size, faces)

    return dataclasses.replace(source, read=read)


def _fill(
    chunk: list[Record | RejectedRecord],
    detector: Detector,
    wanted: Callable[[Record], bool],
    batch_size: int,
    faces: str,
) -> list[Record | RejectedRecord]:
    photos = []
    for place, entry in enumerate(chunk):
        if isinstance(entry, Record) and wanted(entry):
            try:
                photos.append((str(place), decode_rgb(entry.image)))
            except ValueError:
                continue  # the check that follows says so
    for found in find_faces(detector, photos, batch_size=batch_size, order=faces):
        place = int(found.name)
        points = None
        if len(found.keypoints):
            points = upright_points(found.keypoints[0], found.turns)
        chunk[place] = chunk[place]._replace(
            keypoints=np.full((5, 2), np.nan, np.float32) if points is None else points,
            keypoints_from="detector",
        )
    return chunk
