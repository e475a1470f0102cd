"""Records of a source: images with their identity, or the reason for none."""

import dataclasses
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from kprpe_jax.data.importers.landmarks import Landmarks

MAX_IMAGE_BYTES = 1 << 26  # an encoded face is never larger: 64 MiB
NO_IDENTITY = -1
KEYPOINTS_FROM = ("table", "source", "detector")


class Record(NamedTuple):
    """One image of a source.

    Attributes:
      key: unique in its source; landmark tables and reports use it.
      image: the encoded bytes, exactly as in the source.
      identity: number >= 0 or name of the person; NO_IDENTITY where unknown.
      extra: the fields that the source declares.
      label: int32, where the source has fixed it; None = the identity's own number or,
        for names, the order of first appearance.
      keypoints: float32 [5, 2], fractions of width and height; NaN = none was
        detected; None = unknown.
      keypoints_from: their origin, one of KEYPOINTS_FROM.
    """

    key: str
    image: bytes
    identity: int | str
    extra: Mapping[str, Any] = {}
    label: int | None = None
    keypoints: np.ndarray | None = None
    keypoints_from: str = "source"


class RejectedRecord(NamedTuple):
    """An entry that gives no record.

    Attributes:
      key: of the entry, as of a record.
      kind: what is wrong, the same words for all such entries.
      reason: what is wrong with this one.
    """

    key: str
    kind: str
    reason: str


@dataclasses.dataclass(frozen=True)
class RecordSource:
    """Images of one origin in a fixed order.

    Attributes:
      read: from entry number `start` on, the entries in order, good or bad; the same
        for every call.
      state: text that changes when the source does.
      count: number of entries; None where only reading all of it tells.
      extra: name -> `int`, `str` or a TFDS feature, of the fields that every record
        has.
      tables: arrays of an evaluation protocol, stored beside the images.
      landmarks: the source's own landmark table.
      notes: what else is worth telling of the source; sentences.
    """

    read: Callable[[int], Iterator[Record | RejectedRecord]]
    state: str
    count: int | None = None
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    tables: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    landmarks: Landmarks | None = None
    notes: Sequence[str] = ()
    noun: ClassVar[str] = "images"


def file_state(*paths: str | os.PathLike) -> str:
    """Sizes and times of files, for `RecordSource.state`."""
    found = [os.stat(path) for path in paths]
    return " ".join(f"{x.st_size}:{x.st_mtime_ns}" for x in found)


def names_state(names: Iterable[str]) -> str:
    """Digest of file names, for `RecordSource.state`."""
    digest = hashlib.sha256()
    for name in names:
        digest.update(name.encode(errors="surrogateescape") + b"\0")
    return digest.hexdigest()


def read_image(path: str, key: str) -> bytes | RejectedRecord:
    """Read an image file as it is; a missing or huge one is a bad entry."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would be waited for
            return RejectedRecord(key, "missing image", f"{path} is not a file")
        with open(path, "rb") as file:
            image = file.read(MAX_IMAGE_BYTES + 1)
    except OSError as e:
        return RejectedRecord(
            key, "missing image", f"{path} cannot be read ({e.strerror})"
        )
    if len(image) > MAX_IMAGE_BYTES:
        return RejectedRecord(key, "broken image", f"more than {MAX_IMAGE_BYTES} bytes")
    return image
