"""Photos of people, and files that only look like photos, each in its own way."""

import io
import os
import pathlib
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

SIDE = 48  # pixels of a good photo


def good_photo(person: int, number: int) -> bytes:
    """A PNG of a person's pattern, with some noise."""
    pattern = np.random.default_rng(person).uniform(30, 220, (6, 6, 3))
    pattern = np.kron(pattern, np.ones((SIDE // 6, SIDE // 6, 1)))
    noise = np.random.default_rng([person, number]).normal(0, 8, pattern.shape)
    return _encoded(np.clip(pattern + noise, 0, 255).astype(np.uint8), "PNG")


def write_bad(kind: str, path: pathlib.Path, number: int) -> None:
    """Write a bad photo of a kind of BAD; no two have the same bytes."""
    rng = np.random.default_rng([7, number])
    made = BAD[kind](path, rng)
    if made is not None:
        path.write_bytes(made)


def _encoded(image: np.ndarray, kind: str, **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **options)
    return file.getvalue()


def _picture(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(0, 256, (*(shape or (SIDE, SIDE)), 3), np.uint8)


def _text(path, rng):
    return f"no photo, {rng.integers(1 << 60)}".encode()


def _noise(path, rng):
    return rng.bytes(3000)


def _cut(kind: str) -> Callable:
    def make(path, rng):
        whole = _encoded(_picture(rng), kind)
        return whole[: int(len(whole) * rng.uniform(0.2, 0.8))]

    return make


def _head_alone(path, rng):
    return b"\xff\xd8\xff\xe0" + rng.bytes(500)


def _bomb(path, rng):
    """A PNG that says it is of 40,000 x 40,000 pixels."""
    size = 40_000 + int(rng.integers(1000))
    head = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    data = zlib.compress(rng.bytes(100))
    parts = ((b"IHDR", head), (b"IDAT", data), (b"IEND", b""))
    chunks = [
        struct.pack(">I", len(x)) + n + x + struct.pack(">I", zlib.crc32(n + x))
        for n, x in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _other_size(path, rng):
    shape = [(1, 1), (3, SIDE), (200, 30), (SIDE // 2, SIDE // 2)][rng.integers(4)]
    return _encoded(_picture(rng, *shape), "PNG")


def _floats(path, rng):
    """A TIFF of floats, one of them NaN."""
    image = rng.random((SIDE, SIDE), np.float32)
    image[rng.integers(SIDE), rng.integers(SIDE)] = np.nan
    return _encoded(image, "TIFF")


def _heic(path, rng):
    return b"\0\0\0\x18ftypheic" + rng.bytes(400)


def _broken_link(path, rng):
    path.symlink_to(f"nowhere_{rng.integers(1 << 60)}")


def _device(path, rng):
    path.symlink_to("/dev/zero")


def _pipe(path, rng):
    os.mkfifo(path)


def _endless(path, rng):
    """A file of a terabyte that takes no place on the disk."""
    with path.open("wb") as file:
        file.truncate((1 << 40) + int(rng.integers(1 << 30)))


# Kind -> function of the path and a generator: the bytes, or None: it made the file.
BAD = {
    "text": _text,
    "noise": _noise,
    "cut_jpeg": _cut("JPEG"),
    "cut_png": _cut("PNG"),
    "cut_gif": _cut("GIF"),
    "head_alone": _head_alone,
    "bomb": _bomb,
    "other_size": _other_size,
    "floats": _floats,
    "heic": _heic,
    "broken_link": _broken_link,
    "device": _device,
    "pipe": _pipe,
    "endless": _endless,
}
