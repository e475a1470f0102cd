"""Photos behind `reranking`: an archive of LFW, or any imported data set."""

import argparse
import io
import os
from typing import NamedTuple

import numpy as np
from PIL import Image

from kprpe_jax.alignment.photos import align
from kprpe_jax.core.input_spec import InputSpec, to_bytes
from kprpe_jax.data.importers.decode import decode_rgb
from kprpe_jax.data.importers.tar_images import read_images
from kprpe_jax.data.rows import read_field
from kprpe_jax.data.store import open_split

SIDE = 112  # of aligned photos


class Photos(NamedTuple):
    """Aligned photos of people.

    Attributes:
      encoded: N files of 112 x 112 pixels.
      keypoints: float32 [N, 5, 2].
      labels: int32 [N].
      numbers: int [N], seed what is done to each photo.
    """

    encoded: list[bytes]
    keypoints: np.ndarray
    labels: np.ndarray
    numbers: np.ndarray

    def select(self, rows: np.ndarray) -> "Photos":
        """Some of the photos."""
        encoded = [self.encoded[row] for row in rows]
        return Photos(encoded, *(x[rows] for x in self[1:]))


def read_lfw(archive: str | os.PathLike, points: str | os.PathLike) -> Photos:
    """All photos of people with two or more photos.

    Args:
      archive: aligned 112 x 112 photos as Name/Name_0001.jpg.
      points: .npz with `names` and `points112`, in pixels.
    Raises: ValueError: as `read_images`; a table that lacks these arrays.
    """
    try:
        with np.load(points, allow_pickle=False) as table:
            names = [name.decode() for name in table["names"]]
            keypoints = (table["points112"] + 0.5) / SIDE
    except (OSError, KeyError, ValueError, AttributeError) as e:
        raise ValueError(
            f"read_lfw: {os.fspath(points)} must be an .npz with names and points112; "
            f"got {e}; give LFW's landmarks."
        ) from e
    people = np.array([name.split("/")[0] for name in names])
    rows = _of_people_with_two(people)
    encoded = read_images(archive, [names[row] for row in rows])
    return _photos(encoded, keypoints[rows], people[rows])


def read_dataset(
    data_dir: str | os.PathLike,
    name: str,
    split: str,
    *,
    identities: tuple[int, int] | None = None,
) -> Photos:
    """Photos of an imported data set, of people with two or more.

    Photos that are not 112 x 112 pixels are aligned by their keypoints.

    Args:
      data_dir, name, split: of `store.open_split`.
      identities: (first, last): only labels first .. last - 1; None = all.
    Raises: ValueError: as `open_split`; no person with two photos; a photo without
      keypoints.
    """
    source = open_split(data_dir, name, split)
    labels = np.array(read_field(source, "label"))
    first, last = identities or (0, labels.max() + 1)
    some = np.flatnonzero((labels >= first) & (labels < last))
    some = some[_of_people_with_two(labels[some])]
    if not some.size:
        raise ValueError(
            f"read_dataset: {name} must hold people with two photos; got none among "
            f"the labels {first} .. {last - 1}; choose others."
        )
    faces = [_aligned(source[int(row)], name) for row in some]
    encoded, keypoints = zip(*faces, strict=True)
    return _photos(list(encoded), np.stack(keypoints), labels[some])


def _of_people_with_two(people: np.ndarray) -> np.ndarray:
    _, labels, counts = np.unique(people, return_inverse=True, return_counts=True)
    return np.flatnonzero(counts[labels] >= 2)


def _photos(encoded: list[bytes], keypoints: np.ndarray, people: np.ndarray) -> Photos:
    _, labels = np.unique(people, return_inverse=True)
    return Photos(
        encoded,
        keypoints.astype(np.float32),
        labels.astype(np.int32),
        np.arange(len(labels)),
    )


def _aligned(row: dict[str, np.ndarray], name: str) -> tuple[bytes, np.ndarray]:
    """A file of 112 x 112 pixels and its keypoints."""
    key = row["key"].item().decode(errors="replace")
    if not row["has_keypoints"]:
        raise ValueError(
            f"read_dataset: every photo of {name} must have keypoints; {key!r} has "
            "none; import it with --landmarks or --detector."
        )
    encoded, points = row["image"].item(), row["keypoints"]
    image = decode_rgb(encoded)
    if image.shape == (SIDE, SIDE, 3):
        return encoded, points
    face = align(image, points, InputSpec((SIDE, SIDE)))
    file = io.BytesIO()
    Image.fromarray(to_bytes(face.image)).save(file, "png", compress_level=1)
    return file.getvalue(), face.keypoints


def read_photo_set(options: argparse.Namespace) -> Photos:
    """Read the photos that the options of `add_photo_set` name.

    Raises: ValueError: neither or both of archive and data set; as the readers.
    """
    is_archive = options.archive is not None and options.points is not None
    if is_archive == (options.dataset is not None):
        raise ValueError(
            "the photos: give --archive and --points, or --dataset; got "
            + ("both" if is_archive else "neither")
        )
    if is_archive:
        return read_lfw(options.archive, options.points)
    name, _, split = options.dataset.partition(":")
    return read_dataset(
        options.data_dir, name, split or "train", identities=options.identities
    )
