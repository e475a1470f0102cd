"""Images of several faces as a row for each face that a landmark table names."""

import dataclasses
import itertools
from collections.abc import Iterator

from kprpe_jax.data.importers.landmarks import Landmarks
from kprpe_jax.data.importers.record import Record, RecordSource, RejectedRecord


def with_faces(source: RecordSource, landmarks: Landmarks) -> RecordSource:
    """Repeat an image for each of its faces.

    Args:
      source: the images.
      landmarks: the table; `Landmarks.faces` says of which images it holds several.
    Returns: the same source, where the keys of such images are those of the faces:
      a.jpg_0, a.jpg_1 ..., which are the names of their aligned crops, too.
    """

    def entries() -> Iterator[Record | RejectedRecord]:
        for entry in source.read(0):
            names = landmarks.faces(entry.key) if isinstance(entry, Record) else []
            yield from [entry._replace(key=name) for name in names] or [entry]

    def read(start: int) -> Iterator[Record | RejectedRecord]:
        return itertools.islice(entries(), start, None)

    return dataclasses.replace(source, read=read, count=None)
