"""The TFDS data set of patch maps, computed once, to train pair matching from."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from kprpe_jax.data.face_features import write_rows
from kprpe_jax.data.faces import read_labels
from kprpe_jax.data.store import open_split


class FacePatches(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Rows of a CNN's last feature map, split `train`.

    A row has
      patches: float16 [N, C], row by row.
      embedding: float32 [D], not normalized.
      label: int32, of the source.
      id: int32, place in the split.

    Args:
      rows: rows without `id`.
      sizes: N, C and D.
      origin: the metadata.
      **kwargs: of the TFDS builder.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(
        self,
        *,
        rows: Iterator[dict[str, Any]],
        sizes: tuple[int, int, int],
        origin: Mapping[str, Any],
        **kwargs,
    ):
        self._rows, self._sizes, self._origin = rows, sizes, dict(origin)
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        count, channels, embed_dim = self._sizes
        tensor, bytes_ = tfds.features.Tensor, tfds.features.Encoding.BYTES
        return tfds.core.DatasetInfo(
            builder=self,
            description="Patch maps of faces.",
            features=tfds.features.FeaturesDict(
                {
                    "patches": tensor(
                        shape=(count, channels), dtype=np.float16, encoding=bytes_
                    ),
                    "embedding": tensor(
                        shape=(embed_dim,), dtype=np.float32, encoding=bytes_
                    ),
                    "label": np.int32,
                    "id": np.int32,
                }
            ),
            metadata=tfds.core.MetadataDict(self._origin),
            disable_shuffling=True,  # on disk, place = id
        )

    def _split_generators(self, dl_manager):
        del dl_manager
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for number, row in enumerate(self._rows):
            yield number, {**row, "id": np.int32(number)}


def write_patches(
    rows: Iterator[dict[str, Any]],
    *,
    name: str,
    data_dir: str | os.PathLike,
    sizes: tuple[int, int, int],
    origin: Mapping[str, Any],
) -> str:
    """Write a data set of patch maps; an unfinished one is not visible.

    Args:
      rows: with patches, embedding and label.
      name, data_dir: as `write_features`.
      sizes: N, C and D.
      origin: what distinguishes this data set from others; numbers and texts.
    Returns: its folder.
    Raises: ValueError: as `write_features`.
    """
    return write_rows(
        FacePatches, rows, name=name, data_dir=data_dir, sizes=sizes, origin=origin
    )


def open_patches(data_dir: str | os.PathLike, name: str, split: str) -> Any:
    """Rows of a data set of patch maps, by random access.

    Raises: ValueError: as `open_split`; a data set of something else.
    """
    source = open_split(data_dir, name, split)
    if "patches" not in source[0]:
        raise ValueError(
            f"open_patches: {name} must be a data set of patch maps; got one with "
            f"{sorted(source[0])}; make it with python -m kprpe_jax.data."
            "precompute_patches, or set data.input to images"
        )
    return source


class Patches(Sequence):
    """Rows of some people, their labels counted from the first.

    Args:
      source: from `open_patches`.
      identities: (first, last): labels first .. last - 1; () = all.
    Raises: ValueError: nobody there.
    """

    def __init__(self, source: Sequence, identities: tuple[int, ...] = ()):
        labels = read_labels(source)
        self._first, last = identities or (0, int(labels.max()) + 1)
        self._rows = np.flatnonzero((labels >= self._first) & (labels < last))
        if not self._rows.size:
            raise ValueError(
                f"Patches: some labels must lie in {self._first} .. {last - 1}; got "
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
