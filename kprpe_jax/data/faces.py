"""Rows of an imported face data set, decoded: what the loader reads."""

import copy
import os
from collections.abc import Sequence

import numpy as np

from kprpe_jax.data.importers.decode import decode_rgb
from kprpe_jax.data.store import open_split


def open_faces(
    data_dir: str | os.PathLike,
    name: str,
    split: str,
    *,
    image_size: tuple[int, int],
    identities: tuple[int, int] | None = None,
    points: str = "keypoints",
    needs_keypoints: bool = False,
) -> "FaceRows":
    """Open a split of an imported data set, or some of its people.

    Args:
      data_dir, name, split: of `store.open_split`.
      image_size: (height, width) that every image must have.
      identities: (first, last): only rows whose label lies in first .. last - 1, and
        counted from 0 then; None = all rows. Every row is read once for it.
      points: field of the rows that is read as their keypoints: "landmarks" gives the
        84 of synthetic faces instead of five.
      needs_keypoints: of `FaceRows`.
    Raises: ValueError: as `open_split`; a data set without encoded faces, or without
      such points; no such person.
    """
    source = open_split(data_dir, name, split)
    if "has_keypoints" not in source[0]:
        raise ValueError(
            f"open_faces: {name} must be a data set of imported faces; got one with "
            f"{sorted(source[0])}; import it with kprpe-jax import"
        )
    if points not in source[0]:
        raise ValueError(
            f"open_faces: points must be a field of {name}; got {points!r}, and its "
            f"rows have {sorted(source[0])}; choose keypoints"
        )
    options = dict(
        image_size=image_size, points=points, needs_keypoints=needs_keypoints
    )
    if identities is None:
        return FaceRows(source, **options)
    first, last = identities
    labels = read_labels(source)
    rows = np.flatnonzero((labels >= first) & (labels < last))
    if not rows.size:
        raise ValueError(
            f"open_faces: some labels of {name} must lie in {first} .. {last - 1}; got "
            f"{labels.min()} .. {labels.max()}; change the identities"
        )
    return FaceRows(source, rows=rows, first_label=first, **options)


def stored_size(data_dir: str | os.PathLike, name: str, split: str) -> tuple[int, int]:
    """(height, width) of the first image of a split of imported faces.

    Raises: ValueError: as `open_split`; a data set without encoded faces.
    """
    row = open_split(data_dir, name, split)[0]
    if "has_keypoints" not in row:
        raise ValueError(
            f"{name} must be a data set of imported faces; got one with {sorted(row)}; "
            "import it with `kprpe-jax import`"
        )
    return decode_rgb(row["image"].item()).shape[:2]


class FaceRows(Sequence):
    """Decoded rows with random access, for `loader.train_batches` and `eval_batches`.

    A row is image uint8 [H, W, 3], label int32, keypoints float32 [5, 2] (zeros where
    unknown), has_keypoints bool and id int32, its number in the source.

    Args:
      source: rows of an imported data set (`store.open_split`).
      image_size: (H, W); the images must have it, resampling is a matter of alignment.
      rows: int [N], those of the source to show; None = all.
      first_label: subtracted from all labels that are known.
      points: field of the source that becomes the keypoints, [K, 2].
      needs_keypoints: reading a row whose keypoints are not known raises ValueError.
    """

    def __init__(
        self,
        source: Sequence,
        *,
        image_size: tuple[int, int],
        rows: np.ndarray | None = None,
        first_label: int = 0,
        points: str = "keypoints",
        needs_keypoints: bool = False,
    ):
        self._source = source
        self._shape = (*image_size, 3)
        self._rows = np.arange(len(source)) if rows is None else rows
        self._first_label = first_label
        self._points = points
        self._needs_keypoints = needs_keypoints

    def __len__(self) -> int:
        return len(self._rows)

    def select(self, rows: np.ndarray) -> "FaceRows":
        """Some of these rows, int [M], in the given order."""
        chosen = copy.copy(self)
        chosen._rows = self._rows[rows]
        return chosen

    def labels(self) -> np.ndarray:
        """Labels int32 [N] of all rows; images stay encoded."""
        labels = read_labels(self._source)[self._rows]
        return np.where(labels < 0, labels, labels - self._first_label)

    def keys(self) -> list[str]:
        """Keys of all rows, the source's ids; images stay encoded."""
        keys = read_field(self._source, "key")
        return [keys[row].item().decode(errors="surrogateescape") for row in self._rows]

    def has_keypoints(self) -> np.ndarray:
        """Whether the keypoints of a row are known, bool [N]; images stay encoded."""
        return np.array(read_field(self._source, "has_keypoints"), bool)[self._rows]

    def __getitem__(self, row: int) -> dict[str, np.ndarray]:
        """Return one row.

        Raises: ValueError: its image has another size, or keypoints are needed that it
          does not have.
        """
        return self.__getitems__([row])[0]

    def __getitems__(self, rows: Sequence[int]) -> list[dict[str, np.ndarray]]:
        """Return several rows with one read per shard."""
        rows = [int(self._rows[row]) for row in rows]
        encoded = self._source.__getitems__(rows)
        return [self._decode(row, e) for row, e in zip(rows, encoded, strict=True)]

    def _decode(self, row: int, encoded: dict[str, np.ndarray]) -> dict:
        self._check_keypoints(row, encoded)
        image = decode_rgb(encoded["image"].item())
        if image.shape != self._shape:
            raise ValueError(
                f"FaceRows: images must be {self._shape[0]} x {self._shape[1]} pixels; "
                f"got {image.shape[0]} x {image.shape[1]} in row {row} (key "
                f"{encoded['key'].item().decode(errors='replace')!r}); align the data "
                "set or change data.image_shape"
            )
        label = encoded["label"].astype(np.int32)
        return {
            "image": image,
            "label": label if label < 0 else label - np.int32(self._first_label),
            "keypoints": encoded[self._points],
            "has_keypoints": encoded["has_keypoints"],
            "id": np.int32(row),
        }

    def _check_keypoints(self, row: int, encoded: dict[str, np.ndarray]) -> None:
        if self._needs_keypoints and not encoded["has_keypoints"]:
            raise ValueError(
                "FaceRows: every image must have keypoints where a network reads them "
                f"or images are aligned by them; got none in row {row} (key "
                f"{encoded['key'].item().decode(errors='replace')!r}); import the data "
                "set with --landmarks or --detector"
            )


def check_keypoints(name: str, known: np.ndarray) -> None:
    """Refuse a data set without all keypoints before any image is read.

    Args:
      name: of the data set.
      known: bool [N], of all images that will be read.
    Raises: ValueError: some are not known.
    """
    if not known.all():
        raise ValueError(
            f"check_keypoints: every image that is read of {name} must have keypoints "
            "where a network or a template's weights need them or images are aligned "
            f"by them; got {(~known).sum()} of {len(known)} images without; fill them "
            "by `kprpe-jax import prepared` with --detector dfa_mobilenet025:FILE "
            "--min-score 0, which detects some in every image"
        )


def read_labels(source: Sequence) -> np.ndarray:
    """Labels int32 [N] of all rows of an imported data set."""
    return np.asarray(read_field(source, "label"), np.int32)


def read_field(source: Sequence, name: str) -> list[np.ndarray]:
    """One field of all rows, read once from first to last."""
    return read_fields(source, [name])[name]


def read_fields(source: Sequence, names: Sequence[str]) -> dict[str, list[np.ndarray]]:
    """Several fields of all rows, read once from first to last."""
    values: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for start in range(0, len(source), 4096):
        rows = source.__getitems__(range(start, min(start + 4096, len(source))))
        for name in names:
            values[name] += [row[name] for row in rows]
    return values
