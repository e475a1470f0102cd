"""Small sources for the importers: images, and record files from their description."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kprpe_jax.data.importers.record import Record, RecordSource, RejectedRecord

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"
needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason=f"no shared data in {SHARED}"
)
MAGIC = struct.pack("<I", 0xCED7230A)


def encode(array: np.ndarray | Image.Image, kind: str = "JPEG", **options) -> bytes:
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def face(number: int, height: int = 12, width: int = 10) -> bytes:
    """A small JPEG; another for each number."""
    rng = np.random.default_rng(number)
    return encode(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def read_all(
    source: RecordSource, start: int = 0
) -> tuple[list[Record], list[RejectedRecord]]:
    entries = list(source.read(start))
    records = [entry for entry in entries if isinstance(entry, Record)]
    return records, [entry for entry in entries if isinstance(entry, RejectedRecord)]


def pack(data: bytes, *labels: float) -> bytes:
    """Header and content of a record; several labels go behind the header."""
    if len(labels) == 1:
        return struct.pack("<IfQQ", 0, labels[0], 7, 0) + data
    header = struct.pack("<IfQQ", len(labels), 0.0, 7, 0)
    return header + struct.pack(f"<{len(labels)}f", *labels) + data


def framed(content: bytes) -> bytes:
    """Frame a record, cut where its content holds the magic at a multiple of 4."""
    cuts = [i for i in range(0, len(content) - 3, 4) if content[i : i + 4] == MAGIC]
    begins, ends = [0, *(i + 4 for i in cuts)], [*cuts, len(content)]
    frames = b""
    for number, (begin, end) in enumerate(zip(begins, ends, strict=True)):
        if not cuts:
            kind = 0
        else:
            kind = 1 if number == 0 else 3 if number == len(cuts) else 2
        word = struct.pack("<I", kind << 29 | (end - begin))
        frames += MAGIC + word + content[begin:end] + bytes(-(end - begin) % 4)
    return frames


def write_rec(folder: Path, contents: dict[int, bytes], classes: int = 0) -> Path:
    """Write train.rec, train.idx and, with classes, property."""
    folder.mkdir(parents=True, exist_ok=True)
    rec, lines = b"", []
    for index, content in contents.items():
        lines.append(f"{index}\t{len(rec)}\n")
        rec += framed(content)
    (folder / "train.rec").write_bytes(rec)
    (folder / "train.idx").write_text("".join(lines))
    if classes:
        (folder / "property").write_text(f"{classes},12,10")
    return folder


def insightface_rec(folder: Path, labels: list[int], classes: int = 0) -> Path:
    """Images 1..n with these labels, the header record 0, two identity records."""
    last = len(labels) + 1
    contents = {0: pack(b"", last, last + 2)}
    contents |= {i: pack(face(i), label) for i, label in enumerate(labels, 1)}
    contents |= {last: pack(b"", 1, 3), last + 1: pack(b"", 3, last)}
    return write_rec(folder, contents, classes)
