"""Keypoints by a network, for images whose source has none."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator

import numpy as np

from kprpe_jax.alignment.photos import Finder, find_in_photos
from kprpe_jax.data.importers.decode import decode_rgb
from kprpe_jax.data.importers.record import Record, RecordSource, RejectedRecord

_CHUNK = 128  # entries looked at together: batches mix sizes


def with_detected(
    source: RecordSource,
    finder: Finder,
    *,
    wanted: Callable[[Record], bool],
    batch_size: int = 32,
) -> RecordSource:
    """Let a network find the keypoints of a source's images.

    Of several faces in an image the largest counts. An image in which none is found
    gets NaN, which the import reports as missing landmarks.

    Args:
      source: the images.
      finder: the network.
      wanted: whether to look at an image.
      batch_size: images at once.
    Returns: the same source with more keypoints.
    """

    def read(start: int) -> Iterator[Record | RejectedRecord]:
        entries = source.read(start)
        while chunk := list(itertools.islice(entries, _CHUNK)):
            yield from _fill(chunk, finder, wanted, batch_size)

    return dataclasses.replace(source, read=read)


def _fill(
    chunk: list[Record | RejectedRecord],
    finder: Finder,
    wanted: Callable[[Record], bool],
    batch_size: int,
) -> list[Record | RejectedRecord]:
    photos = []
    for place, entry in enumerate(chunk):
        if isinstance(entry, Record) and wanted(entry):
            try:
                photos.append((str(place), decode_rgb(entry.image)))
            except ValueError:
                continue  # the check that follows says so
    for found in find_in_photos(finder, photos, batch_size=batch_size):
        place = int(found.name)
        points = found.keypoints[0] if len(found.keypoints) else None
        chunk[place] = chunk[place]._replace(
            keypoints=np.full((5, 2), np.nan, np.float32) if points is None else points,
            keypoints_from="detector",
        )
    return chunk
