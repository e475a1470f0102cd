"""The TFDS data set of embeddings and style, computed once, to train fusion from."""

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from kprpe_jax.data.store import open_split

SPLITS = ("clean", "degraded")


class FaceFeatures(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Rows of a backbone's features.

    Both splits have
      embedding: float32 [D], not normalized; of `clean` rows the sum over the photo and
        its mirror image.
      statistics: float32 [C, 2], of the photo alone.
      label: int32, of the source.
      photo: int32, number of the photo, the place of its `clean` row.
      id: int32, place in the split.
    `degraded` has the photos in the same order, `copies` degraded copies of each in a
    row. The metadata say of which backbone and images these are.

    Args:
      rows: split -> rows, without `id`.
      sizes: D and C.
      origin: the metadata.
      **kwargs: of the TFDS builder.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(
        self,
        *,
        rows: Mapping[str, Iterator[dict[str, Any]]],
        sizes: tuple[int, int],
        origin: Mapping[str, Any],
        **kwargs,
    ):
        self._rows, self._sizes, self._origin = rows, sizes, dict(origin)
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        embed_dim, channels = self._sizes
        bytes_ = tfds.features.Encoding.BYTES

        def floats(*shape: int) -> tfds.features.Tensor:
            return tfds.features.Tensor(shape=shape, dtype=np.float32, encoding=bytes_)

        return tfds.core.DatasetInfo(
            builder=self,
            description="Embeddings and style statistics of faces.",
            features=tfds.features.FeaturesDict(
                {
                    "embedding": floats(embed_dim),
                    "statistics": floats(channels, 2),
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
        return {split: self._generate_examples(self._rows[split]) for split in SPLITS}

    def _generate_examples(self, rows: Iterator[dict[str, Any]]):
        for number, row in enumerate(rows):
            yield number, {**row, "id": np.int32(number)}


def write_features(
    rows: Mapping[str, Iterator[dict[str, Any]]],
    *,
    name: str,
    data_dir: str | os.PathLike,
    sizes: tuple[int, int],
    origin: Mapping[str, Any],
) -> str:
    """Write a data set of features; an unfinished one is not visible.

    Args:
      rows: split of SPLITS -> rows with embedding, statistics, label and photo.
      name: of the data set: small letters, digits and _, a letter first.
      data_dir: the folder that holds all data sets.
      sizes: D and C.
      origin: what distinguishes this data set from others; numbers and texts.
    Returns: its folder.
    Raises: ValueError: a bad name; a data set of this name that is there.
    """
    return write_rows(
        FaceFeatures, rows, name=name, data_dir=data_dir, sizes=sizes, origin=origin
    )


def write_rows(
    builder_class: type[tfds.core.GeneratorBasedBuilder],
    rows: Any,
    *,
    name: str,
    data_dir: str | os.PathLike,
    sizes: tuple[int, ...],
    origin: Mapping[str, Any],
) -> str:
    """Write a data set under a name of its own, by a builder of rows, sizes and origin.

    Args:
      builder_class: as `FaceFeatures`.
      rows, sizes, origin: its arguments.
      name, data_dir: as `write_features`.
    Returns: its folder.
    Raises: ValueError: as `write_features`.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError(
            "write_features: the name must be small letters, digits and _ with a "
            f"letter first; got {name!r}; choose another"
        )
    path = os.path.join(data_dir, name, str(builder_class.VERSION))
    if os.path.exists(path):
        raise ValueError(
            f"write_features: {path} is there already; delete it or choose another name"
        )
    # TFDS takes the folder's name from the class.
    named_class = type(name, (builder_class,), {"name": name}, skip_registration=True)
    builder = named_class(
        rows=rows,
        sizes=sizes,
        origin=origin,
        data_dir=os.fspath(data_dir),
        file_format="array_record",
    )
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    # TFDS speaks of downloads; there are none.
    with tempfile.TemporaryDirectory() as unused, contextlib.redirect_stdout(None):
        builder.download_and_prepare(download_dir=unused, download_config=config)
    return path


def read_origin(data_dir: str | os.PathLike, name: str) -> dict[str, Any]:
    """What a data set of features is of: its metadata, and embed_dim, D.

    Raises: ValueError: as `open_split`; a data set of something else.
    """
    source = open_split(data_dir, name, "clean")
    check_features(source, name)
    folder = os.path.join(data_dir, name, str(FaceFeatures.VERSION))
    metadata = tfds.builder_from_directory(folder).info.metadata or {}
    return {**metadata, "embed_dim": len(source[0]["embedding"])}


class FeatureRows(NamedTuple):
    """Features in memory.

    Attributes:
      embeddings: float32 [N, D].
      statistics: float32 [N, C, 2].
      labels, photos: int32 [N].
    """

    embeddings: np.ndarray
    statistics: np.ndarray
    labels: np.ndarray
    photos: np.ndarray

    def select(self, rows: np.ndarray) -> "FeatureRows":
        """Some of these rows, int or bool, in the given order."""
        return FeatureRows(*(field[rows] for field in self))


def read_features(
    data_dir: str | os.PathLike,
    name: str,
    split: str,
    *,
    identities: tuple[int, int] | None = None,
) -> FeatureRows:
    """Read the features of some people into memory.

    Args:
      data_dir, name, split: of `store.open_split`.
      identities: (first, last): only rows whose label lies in first .. last - 1; None =
        all.
    Raises: ValueError: as `open_split`; a data set of something else; nobody there.
    """
    source = open_split(data_dir, name, split)
    check_features(source, name)
    first, last = identities or (-(2**31), 2**31)
    rows = (
        row
        for start in range(0, len(source), 4096)
        for row in source.__getitems__(range(start, min(start + 4096, len(source))))
        if first <= row["label"] < last
    )
    found = collect(rows)
    if found is None:
        raise ValueError(
            f"read_features: some labels of {name} must lie in {first} .. {last - 1}; "
            "got none; change the identities"
        )
    return found


def collect(rows: Iterable[dict[str, Any]]) -> FeatureRows | None:
    """Stack rows; None if there are none."""
    rows = list(rows)
    if not rows:
        return None
    columns = ("embedding", "statistics", "label", "photo")
    return FeatureRows(*(np.stack([row[c] for row in rows]) for c in columns))


def check_features(source: Any, name: str) -> None:
    """Raise ValueError unless the rows are features."""
    if "statistics" not in source[0]:
        raise ValueError(
            f"read_features: {name} must be a data set of features; got one with "
            f"{sorted(source[0])}; make it with python -m kprpe_jax.data.precompute"
        )
