"""The TFDS data set of features: a recognizer's outputs, computed once."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from kprpe_jax.core.features import Features, take
from kprpe_jax.data.faces import read_labels
from kprpe_jax.data.prepare import write
from kprpe_jax.data.store import open_builder, open_split

SPLITS = ("clean", "degraded")
VERSION = "2.0.0"


class FeatureDataset(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Rows of a recognizer's features.

    Rows of both splits have
      embedding: float32 [D], not normalized.
      style: float32 [C, 2]; absent where it was not asked for.
      patches: float16 [N, C'], row by row; absent where they were not asked for.
      label: int32, of the source.
      photo: int32, number of the photo, the place of its `clean` row.
      id: int32, place in the split.
    `degraded`, where there is one, has the photos in the same order, a number of
    degraded copies of each in a row. The metadata say of which recognizer, contract and
    images the features are (`check_origin`).

    Args:
      rows: split -> rows, without `id`.
      shapes: field -> its shape: embedding, and style and patches where they are kept.
      origin: the metadata.
      **kwargs: of the TFDS builder.
    """

    VERSION = tfds.core.Version(VERSION)

    def __init__(
        self,
        *,
        rows: Mapping[str, Iterator[dict[str, Any]]],
        shapes: Mapping[str, tuple[int, ...]],
        origin: Mapping[str, Any],
        **kwargs,
    ):
        self._rows, self._shapes, self._origin = rows, shapes, dict(origin)
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        kinds = {"patches": np.float16}
        return tfds.core.DatasetInfo(
            builder=self,
            description="Features of faces.",
            features=tfds.features.FeaturesDict(
                {
                    **{
                        name: tfds.features.Tensor(
                            shape=tuple(shape),
                            dtype=kinds.get(name, np.float32),
                            encoding=tfds.features.Encoding.BYTES,
                        )
                        for name, shape in self._shapes.items()
                    },
                    "label": np.int32,
                    "photo": np.int32,
                    "id": np.int32,
                }
            ),
            metadata=tfds.core.MetadataDict(self._origin),
            disable_shuffling=True,  # on disk, place = id
        )

    def _split_generators(self, dl_manager):
        del dl_manager
        return {
            split: self._generate_examples(rows) for split, rows in self._rows.items()
        }

    def _generate_examples(self, rows: Iterator[dict[str, Any]]):
        for number, row in enumerate(rows):
            yield number, {**row, "id": np.int32(number)}


def write_features(
    rows: Mapping[str, Iterator[dict[str, Any]]],
    *,
    name: str,
    data_dir: str | os.PathLike,
    shapes: Mapping[str, tuple[int, ...]],
    origin: Mapping[str, Any],
) -> str:
    """Write a data set of features; an unfinished one is not visible.

    Args:
      rows: split of SPLITS -> rows with the fields of `shapes`, label and photo.
      name: of the data set: small letters, digits and _, a letter first.
      data_dir: the folder that holds all data sets.
      shapes, origin: of `FeatureDataset`; origin is numbers and texts.
    Returns: its folder.
    Raises: ValueError: a bad name; a data set of this name that is there.
    """
    given = dict(rows=rows, shapes=shapes, origin=origin)
    return write(FeatureDataset, name, data_dir, **given)


def read_origin(data_dir: str | os.PathLike, name: str) -> dict[str, Any]:
    """The metadata of a data set of features: recognizer, fingerprint, contract ...

    Raises: ValueError: as `open_split`; a data set of something else.
    """
    _check_kind(open_split(data_dir, name, SPLITS[0])[0], name)
    return dict(open_builder(data_dir, name).info.metadata or {})


def check_origin(origin: Mapping[str, Any], wanted: Mapping[str, Any], name: str):
    """Raise ValueError where features are of another recognizer or contract.

    Args:
      origin: metadata of the data set `name`.
      wanted: recognizer, fingerprint and input_spec of a recognizer (`about`), or of
        other features; what one of the two does not say is not compared.
      name: of the data set.
    """
    for field in ("input_spec", "fingerprint"):
        stored, given = origin.get(field, ""), wanted.get(field, "")
        if stored and given and stored != given:
            told = {"input_spec": "contract", "fingerprint": "weights"}[field]
            raise ValueError(
                f"the features of {name} are of {origin.get('recognizer')} ("
                f"{told} {stored}); got {wanted.get('recognizer')} ({told} {given}); "
                "give the recognizer that made them, or make them anew with "
                "`kprpe-jax embed`"
            )


class StoredFeatures(NamedTuple):
    """Features in memory.

    Attributes:
      features: of N images.
      labels, photos: int32 [N].
    """

    features: Features
    labels: np.ndarray
    photos: np.ndarray

    def select(self, rows: np.ndarray) -> "StoredFeatures":
        """Some of these rows, int or bool, in the given order."""
        return StoredFeatures(
            take(self.features, rows), self.labels[rows], self.photos[rows]
        )


class FeatureRows(Sequence):
    """Rows of some people, their labels counted from the first.

    Args:
      source: rows of a split.
      identities: (first, last): labels first .. last - 1; () = all.
    Raises: ValueError: no row of these identities.
    """

    def __init__(self, source: Sequence, identities: tuple[int, ...] = ()):
        labels = read_labels(source)
        self._first, last = identities or (0, int(labels.max()) + 1)
        self._rows = np.flatnonzero((labels >= self._first) & (labels < last))
        if not self._rows.size:
            raise ValueError(
                f"identities: some labels must lie in {self._first} .. {last - 1}; got "
                f"{labels.min()} .. {labels.max()}; change the identities"
            )
        self._source, self._labels = source, labels[self._rows] - np.int32(self._first)

    def __len__(self) -> int:
        return len(self._rows)

    def labels(self) -> np.ndarray:
        """Labels int32 [N] of all rows."""
        return self._labels

    def __getitem__(self, row: int) -> dict[str, np.ndarray]:
        """Return one row."""
        return self.__getitems__([row])[0]

    def __getitems__(self, rows: Sequence[int]) -> list[dict[str, np.ndarray]]:
        """Return several rows with one read per shard."""
        read = self._source.__getitems__([int(self._rows[row]) for row in rows])
        return [
            {**values, "label": self._labels[row]}
            for row, values in zip(rows, read, strict=True)
        ]


def open_features(
    data_dir: str | os.PathLike, name: str, split: str, *, patches: bool = False
) -> Sequence:
    """Rows of a split of features, by random access.

    Args:
      data_dir, name, split: of `store.open_split`.
      patches: whether the rows must have patches.
    Raises: ValueError: as `open_split`; a data set of something else, or without
      patches.
    """
    source = open_split(data_dir, name, split)
    _check_kind(source[0], name)
    if patches and "patches" not in source[0]:
        raise ValueError(
            f"{name} must be features with patches; got some with "
            f"{sorted(source[0])}; make them with `kprpe-jax embed --patches`"
        )
    return source


def read_features(
    data_dir: str | os.PathLike,
    name: str,
    split: str,
    *,
    identities: tuple[int, int] | None = None,
) -> StoredFeatures:
    """Read the features of some people into memory.

    Args:
      data_dir, name, split: of `store.open_split`.
      identities: (first, last): only rows whose label lies in first .. last - 1; None =
        all.
    Raises: ValueError: as `open_features`; no row of these identities.
    """
    source = open_features(data_dir, name, split)
    first, last = identities or (-(2**31), 2**31)
    rows = [
        row
        for start in range(0, len(source), 4096)
        for row in source.__getitems__(range(start, min(start + 4096, len(source))))
        if first <= row["label"] < last
    ]
    if not rows:
        raise ValueError(
            f"identities: some labels of {name} must lie in {first} .. {last - 1}; got "
            "none; change the identities"
        )
    return collect(rows)


def collect(rows: Sequence[Mapping[str, Any]]) -> StoredFeatures:
    """Stack rows, of which there must be some."""
    column = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    return StoredFeatures(
        Features(column["embedding"], column.get("patches"), column.get("style")),
        column["label"],
        column["photo"],
    )


def choose_photos(
    labels: np.ndarray, *, min_images: int = 1, max_images: int = 0
) -> np.ndarray:
    """Rows of the people with at least `min_images`, of each the first `max_images`.

    Args:
      labels: int [N]; rows < 0 are unlabeled.
      min_images, max_images: per person; max_images 0 = all.
    Returns: int [M], rising.
    """
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[order], prepend=labels.min() - 1))
    groups = np.split(order, starts[1:])
    chosen = [
        rows[: max_images or None]
        for rows in groups
        if labels[rows[0]] >= 0 and len(rows) >= min_images
    ]
    return np.sort(np.concatenate([np.zeros(0, int), *chosen]))


def _check_kind(row: Mapping[str, Any], name: str) -> None:
    if not {"embedding", "photo"} <= row.keys():
        raise ValueError(
            f"{name} must be a data set of features; got one with {sorted(row)}; make "
            "it with `kprpe-jax embed`"
        )
