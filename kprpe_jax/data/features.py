"""The TFDS data set of features: a recognizer's outputs, computed once."""

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from kprpe_jax.core.features import Features, take
from kprpe_jax.data.prepare import RowsBuilder, write
from kprpe_jax.data.rows import (
    ChosenRows,
    read_field,
    read_rows,
    rows_of_identities,
)
from kprpe_jax.data.store import open_builder, open_split

SPLITS = ("clean", "degraded")
VERSION = "2.0.0"


class FeatureDataset(RowsBuilder, skip_registration=True):
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
        kinds = {"patches": np.float16}
        arrays = {
            name: tfds.features.Tensor(
                shape=tuple(shape),
                dtype=kinds.get(name, np.float32),
                encoding=tfds.features.Encoding.BYTES,
            )
            for name, shape in shapes.items()
        }
        numbers = dict.fromkeys(("label", "photo", "id"), np.int32)
        super().__init__(
            description="Features of faces.",
            features={**arrays, **numbers},
            splits={split: partial(_numbered, part) for split, part in rows.items()},
            metadata=origin,
            **kwargs,
        )


def _numbered(rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    return ({**row, "id": np.int32(number)} for number, row in enumerate(rows))


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


def open_features(
    data_dir: str | os.PathLike,
    name: str,
    split: str,
    *,
    identities: tuple[int, int] | None = None,
    patches: bool = False,
) -> ChosenRows:
    """Rows of a split of features, or of some people, by random access.

    Args:
      data_dir, name, split: of `store.open_split`.
      identities: (first, last): only rows whose label lies in first .. last - 1, and
        counted from 0 then; None = all rows. Every row is read once for it.
      patches: whether the rows must have patches.
    Raises: ValueError: as `open_split`; a data set of something else, or without
      patches; no row of these identities.
    """
    source = open_split(data_dir, name, split)
    _check_kind(source[0], name)
    if patches and "patches" not in source[0]:
        raise ValueError(
            f"{name} must be features with patches; got some with "
            f"{sorted(source[0])}; make them with `kprpe-jax embed --patches`"
        )
    if identities is None:
        return ChosenRows(source)
    rows = rows_of_identities(name, read_field(source, "label"), identities)
    return ChosenRows(source, rows=rows, first_label=identities[0])


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
    rows = [row for row in read_rows(source) if first <= row["label"] < last]
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
