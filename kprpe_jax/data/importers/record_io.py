"""MXNet RecordIO as InsightFace packs it: train.rec, train.idx, property.

A record is the magic number, a word whose upper 3 bits say which part of a record
follows (0 = all, 1 = first, 2 = middle, 3 = last) and whose lower 29 bits are its
length, then the bytes, padded to a multiple of 4. Where the content itself holds the
magic number at a multiple of 4, the writer cuts there and leaves the number out; so
only last parts need padding.

The content begins with a header: flag uint32, label float32, id uint64, id2 uint64; a
flag above 0 is the number of float32 labels that follow in place of the one.
InsightFace's record 0 is a header: it has no image, and its labels are the first and
the last + 1 index of the records that describe identities; records 1 up to the first of
those are the images. An image may have several labels, too (MXNet's im2rec packs any
number): a header is what has no data. Without a header all records are images.
"""

import os
import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import numpy as np

from kprpe_jax.data.importers.record import (
    Record,
    RecordSource,
    RejectedRecord,
    file_state,
)
from kprpe_jax.data.importers.tables import is_number, read_numbers

_MAGIC = 0xCED7230A
_LENGTH_BITS = 29
_HEADER = struct.Struct("<IfQQ")
_NO_OFFSET = -1


class Packed(NamedTuple):
    """Content of one record: labels float32 [L], the rest as bytes."""

    labels: np.ndarray
    data: bytes


def open_record_io(rec: str | os.PathLike, label: int = 0) -> RecordSource:
    """Open a .rec file with its .idx; `property`, if there, bounds the labels.

    Args:
      rec: the .rec file, or the folder that holds train.rec.
      label: which of a record's labels is the identity, from 0.
    Returns: a source whose keys are the index numbers and whose identities are the
      numbers in the file; an index that the .idx lacks or has twice is bad. It notes
      where the first image has several labels.
    Raises: ValueError: no .idx, a malformed .idx or property, a first record that
      cannot be read; a first image with fewer labels.
    """
    rec = os.fspath(rec)
    rec = os.path.join(rec, "train.rec") if os.path.isdir(rec) else rec
    idx = os.path.splitext(rec)[0] + ".idx"
    for path in (rec, idx):
        if not os.path.isfile(path):
            raise ValueError(
                f"{path} must exist: a .rec file is read by its .idx; "
                "got no such file; fetch both"
            )
    indices, offsets = read_index(idx)
    if indices[0] == 0:
        indices, offsets = _images_only(rec, indices, offsets)
    notes = _note_labels(rec, offsets, label)
    num_classes = _read_property(os.path.join(os.path.dirname(rec), "property"))
    repeated = np.diff(indices, prepend=-1) == 0  # indices are sorted

    def read(start: int) -> Iterator[Record | RejectedRecord]:
        with open(rec, "rb") as file:
            for row in range(start, len(indices)):
                key = str(indices[row])
                if repeated[row]:
                    yield RejectedRecord(
                        key, "duplicate id", f"{idx} names it more than once"
                    )
                elif offsets[row] == _NO_OFFSET:
                    yield RejectedRecord(
                        key, "missing record", f"{idx} does not name it"
                    )
                else:
                    place = int(offsets[row])
                    yield _entry(file, place, rec, key, label, num_classes)

    state = f"{file_state(rec, idx)} label {label}" if label else file_state(rec, idx)
    return RecordSource(read, state=state, count=len(indices), notes=notes)


def _note_labels(rec: str, offsets: np.ndarray, label: int) -> tuple[str, ...]:
    """Say which label is the identity where the first readable image has several."""
    with open(rec, "rb") as file:
        for offset in offsets[offsets != _NO_OFFSET]:
            try:
                count = len(unpack(read_record(file, int(offset), rec)).labels)
            except ValueError:
                continue
            if not 0 <= label < max(count, 1):
                raise ValueError(
                    f"--label must be one of the labels of an image of {rec}, 0 to "
                    f"{count - 1}; got {label}"
                )
            if count < 2:
                return ()
            return (
                f"an image has {count} labels; number {label} is the identity "
                f"(--label takes another of 0 to {count - 1})",
            )
    return ()


def _images_only(
    rec: str, indices: np.ndarray, offsets: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Keep the images where record 0 says which they are, with those that lack."""
    with open(rec, "rb") as file:
        labels, data = unpack(read_record(file, int(offsets[0]), rec))
        if data or len(labels) < 2:  # an image: there is no header
            return indices, offsets
        end = end_of_images(file, rec, labels[0], indices, offsets)
    images = (indices >= 1) & (indices < end)
    if end > 2 * (int(images.sum()) + 1):
        raise ValueError(
            f"the .idx must name the images 1 to {end - 1} that record "
            f"0 of {rec} announces; got {int(images.sum())} of them; fetch both again"
        )
    present = np.zeros(end, bool)
    present[0] = present[indices[images]] = True
    lacking = np.flatnonzero(~present)
    indices = np.concatenate([indices[images], lacking])
    offsets = np.concatenate([offsets[images], np.full(len(lacking), _NO_OFFSET)])
    order = np.argsort(indices, kind="stable")
    return indices[order], offsets[order]


def end_of_images(
    file: BinaryIO,
    rec: str,
    label: np.float32,
    indices: np.ndarray,
    offsets: np.ndarray,
) -> int:
    """Index after the last image, from record 0's first label.

    From 2**24 on a float32 is rounded. The first record without data is an identity's.

    Args:
      file: the .rec file, open for binary reading.
      rec: its path, named in errors.
      label: the first label of record 0.
      indices: int64 [N].
      offsets: int64 [N], their places.
    Raises: ValueError: no such index; a record near the place that cannot be read.
    """
    if not 1 <= label < 2**40:  # NaN, too
        raise ValueError(
            f"the first label of record 0 of {rec} must be the index "
            f"after the last image; got {label}; fetch the .rec again"
        )
    end = int(label)
    if end < 2**24:
        return end
    slack = int(np.spacing(label))
    for row in np.flatnonzero(np.abs(indices - end) <= slack):
        if not unpack(read_record(file, int(offsets[row]), rec)).data:
            return int(indices[row])
    return end


def _entry(
    file: BinaryIO,
    offset: int,
    path: str,
    key: str,
    number: int,
    num_classes: int | None,
) -> Record | RejectedRecord:
    """One image; `number` says which of its labels is the identity."""
    try:
        packed = unpack(read_record(file, offset, path))
    except ValueError as e:
        return RejectedRecord(key, "broken record", str(e))
    count = len(packed.labels)
    if count <= number:
        return RejectedRecord(
            key, "wrong label", f"must have a label number {number}; got {count} labels"
        )
    label = float(packed.labels[number])
    # A float32 holds whole numbers up to 2**24: above, neighbors become one.
    top = 2**24 if num_classes is None else min(num_classes, 2**24)
    if not (0 <= label < top and label.is_integer()):
        return RejectedRecord(
            key, "wrong label", f"must be a whole 0..{top - 1}; got {label:g}"
        )
    return Record(key, packed.data, int(label))


def read_index(path: str | os.PathLike) -> tuple[np.ndarray, np.ndarray]:
    """Read an .idx file: a line "index<TAB>offset" per record.

    Returns: indices and byte offsets, int64 [N] each, sorted by index.
    Raises: ValueError: names the file and the line that is not two whole numbers >= 0.
    """
    table = read_numbers(path, 2)
    negative = table[(table < 0).any(axis=1)]
    if len(negative):
        raise ValueError(
            f"{os.fspath(path)} must hold whole numbers >= 0; got "
            f"{negative[0].tolist()}; fetch or make it again"
        )
    table = table[np.argsort(table[:, 0], kind="stable")]
    return table[:, 0], table[:, 1]


def _read_property(path: str) -> int | None:
    """Return the number of identities: the first of "identities,height,width"."""
    if not os.path.isfile(path):
        return None
    with open(path, encoding="utf-8", errors="replace") as file:
        text = file.read(200).strip()
    count = text.split(",")[0].strip()
    if not is_number(count):
        raise ValueError(
            f"{path} must be 'identities,height,width'; got {text!r}; "
            "repair or remove it"
        )
    return int(count)


def read_record(file: BinaryIO, offset: int, path: str) -> bytes:
    """Read the record at a byte offset and join its parts.

    Args:
      file: the .rec file, open for binary reading.
      offset: of the record, bytes.
      path: named in errors.
    Raises: ValueError: an offset outside the file, another magic number, parts out of
      order, a file that ends in the record.
    """
    where = f"the record at byte {offset} of {path}"
    parts: list[bytes] = []
    file.seek(offset)
    while True:
        head = file.read(8)
        if len(head) < 8:
            raise ValueError(
                f"{where} must be inside the file; got its end after {len(head)} of 8 "
                "header bytes; the .rec is truncated or the .idx is another file's: "
                "fetch both again"
            )
        magic, word = struct.unpack("<II", head)
        if magic != _MAGIC:
            raise ValueError(
                f"{where} must begin with the magic number {_MAGIC:#x}; got "
                f"{magic:#x}; the .rec is damaged or the .idx is another file's: fetch "
                "both again"
            )
        part, length = word >> _LENGTH_BITS, word & ((1 << _LENGTH_BITS) - 1)
        if part not in ((2, 3) if parts else (0, 1)):
            raise ValueError(
                f"{where} must be whole or begin with a first part; got part kind "
                f"{part} as number {len(parts) + 1}; fetch the .rec again"
            )
        data = file.read(length)
        if len(data) < length:
            raise ValueError(
                f"{where} must have {length} bytes; got {len(data)} up to the end of "
                "the file; the .rec is truncated: fetch it again"
            )
        parts.append(data)
        if part in (0, 3):
            return struct.pack("<I", _MAGIC).join(parts)


def unpack(content: bytes) -> Packed:
    """Split a record into labels and data.

    Raises: ValueError: shorter than its header says.
    """
    if len(content) >= _HEADER.size:
        flag, label, _, _ = _HEADER.unpack_from(content)
        begin = _HEADER.size + 4 * flag
        if len(content) >= begin:
            labels = np.frombuffer(content, "<f4", flag, _HEADER.size)
            return Packed(labels if flag else np.float32([label]), content[begin:])
    raise ValueError(
        f"a record must hold its header of {_HEADER.size} bytes and the labels "
        f"that this announces; got {len(content)} bytes; it is no packed image: check "
        "the file"
    )
