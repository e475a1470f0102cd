"""People and photos that stand in two data sets, such as a training and a test set."""

import hashlib
import itertools
import os
import re
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.data.faces import open_faces
from kprpe_jax.data.importers.decode import decode_rgb
from kprpe_jax.data.rows import read_rows
from kprpe_jax.data.store import only_split, open_split
from kprpe_jax.evaluation.embedding import embed
from kprpe_jax.matching.nearest import ExactIndex

# Two copies of a photo, compressed or cut anew, are as alike; two photos are rarely.
ALIKE = 0.95
_SHOWN = 100  # of each list in the report
_THREADS = min(os.cpu_count() or 1, 8)


class Overlap(NamedTuple):
    """What two data sets share.

    Attributes:
      people: identities of the same name, in the letters of the first data set.
      files: (key, key in the other) of images whose encoded bytes are equal.
      pixels: likewise, of images whose decoded pixels are equal and whose bytes differ.
      alike: (key, key in the other, cosine) of images whose embeddings are nearly equal
        (ALIKE); None = they were not compared.
      images: of the first data set that are in `files`, `pixels` or `alike`.
    """

    people: list[str]
    files: list[tuple[str, str]]
    pixels: list[tuple[str, str]]
    alike: list[tuple[str, str, float]] | None
    images: int

    def report(self) -> dict[str, Any]:
        """As import_report.json has it: counts, and the first of each list."""
        lists = {name: x for name, x in self._asdict().items() if isinstance(x, list)}
        counts = {name: len(found) for name, found in lists.items()}
        shown = {name: found[:_SHOWN] for name, found in lists.items()}
        return {"images": self.images, "counts": counts, **shown}

    def describe(self) -> str:
        """In one line."""
        text = (
            f"people of the same name: {len(self.people)}; images in both: "
            f"{self.images}, the same file {len(self.files)}, the same pixels "
            f"{len(self.pixels)}"
        )
        if self.alike is None:
            return text
        return f"{text}, nearly the same embedding {len(self.alike)}"


class _Contents(NamedTuple):
    """Keys, names of people, and digests of the N images of a data set."""

    keys: list[str]
    people: list[str]
    files: list[bytes]
    pixels: list[bytes]


def find_overlap(
    data_dir: str | os.PathLike,
    name: str,
    other: str,
    *,
    recognizer: Recognizer | None = None,
    batch_size: int = 64,
) -> Overlap:
    """Compare two imported data sets of one split each.

    People are compared by name, whatever their capitals, accents and separators; those
    without a name (numbers) are not. Memory holds a digest per image and, with a
    recognizer, the embeddings.

    Args:
      data_dir: of both.
      name: the data set that the result is about.
      other: what it is compared with.
      recognizer: compares embeddings, too; images must have the size that it reads.
      batch_size: of the recognizer.
    Raises: ValueError: as `store.open_split`, and `embed` with a recognizer.
    """
    own, their = (_read(data_dir, x) for x in (name, other))
    known = {_plain(person) for person in their.people}
    people = dict.fromkeys(x for x in own.people if _plain(x) and _plain(x) in known)
    files = _equal(own.files, their.files)
    found = {row for row, _ in files}
    pixels = [x for x in _equal(own.pixels, their.pixels) if x[0] not in found]
    found |= {row for row, _ in pixels}
    alike = None
    if recognizer is not None:
        scores, rows = _nearest(data_dir, name, other, recognizer, batch_size)
        near = [row for row in np.flatnonzero(scores >= ALIKE) if row not in found]
        found |= {int(row) for row in near}
        alike = [
            (own.keys[row], their.keys[rows[row]], round(float(scores[row]), 4))
            for row in near
        ]

    def keys(pairs: list[tuple[int, int]]) -> list[tuple[str, str]]:
        return [(own.keys[i], their.keys[j]) for i, j in pairs]

    return Overlap(list(people), keys(files), keys(pixels), alike, len(found))


def _read(data_dir: str | os.PathLike, name: str) -> _Contents:
    rows = open_split(data_dir, name, only_split(data_dir, name))
    contents = _Contents([], [], [], [])
    with ThreadPoolExecutor(_THREADS) as pool:
        waiting = read_rows(rows)
        while chunk := list(itertools.islice(waiting, 64 * _THREADS)):
            for row in pool.map(_row, chunk):
                for values, value in zip(contents, row, strict=True):
                    values.append(value)
    return contents


def _row(row: dict[str, np.ndarray]) -> tuple[str, str, bytes, bytes]:
    image = row["image"].item()
    return (
        row["key"].item().decode(errors="backslashreplace"),
        row["identity"].item().decode(errors="replace"),
        hashlib.blake2b(image, digest_size=16).digest(),
        _digest_pixels(image),
    )


def _digest_pixels(image: bytes) -> bytes:
    pixels = decode_rgb(image)
    digest = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=16)
    digest.update(pixels.tobytes())
    return digest.digest()


def _equal(own: list[bytes], their: list[bytes]) -> list[tuple[int, int]]:
    """(row, first row of the other) of digests that both have."""
    rows = {digest: row for row, digest in reversed(list(enumerate(their)))}
    return [(row, rows[digest]) for row, digest in enumerate(own) if digest in rows]


def _nearest(
    data_dir: str | os.PathLike,
    name: str,
    other: str,
    recognizer: Recognizer,
    batch_size: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Best cosine float [N] of each image in the other data set, and its row [N]."""

    def embeddings(data_set: str) -> np.ndarray:
        rows = open_faces(
            data_dir,
            data_set,
            only_split(data_dir, data_set),
            needs_keypoints=recognizer.input_spec.num_keypoints > 0,
        )
        return embed(recognizer, rows, batch_size=batch_size).embeddings

    ranking = ExactIndex(embeddings(other)).search(embeddings(name), 1)
    return np.asarray(ranking.scores)[:, 0], np.asarray(ranking.rows)[:, 0]


def _plain(person: str) -> str:
    """A name without capitals, accents and separators; "" for a number."""
    text = unicodedata.normalize("NFKD", person).casefold()
    text = re.sub(
        r"[\W_]+", "", "".join(x for x in text if not unicodedata.combining(x))
    )
    return "" if text.isdigit() else text
