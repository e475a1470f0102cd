"""A data set of faces that was imported or synthesized before, to be written anew.

So a landmark table or a detector fills its keypoints, and nothing else changes.
"""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from kprpe_jax.data.importers.dataset import face_features
from kprpe_jax.data.importers.record import (
    NO_IDENTITY,
    Record,
    RecordSource,
    file_state,
)
from kprpe_jax.data.rows import read_rows
from kprpe_jax.data.store import open_builder, open_split, read_tables


def open_prepared(path: str | os.PathLike) -> RecordSource:
    """Open a split of a prepared data set of faces.

    Args:
      path: "data_dir/name", or "data_dir/name:split" where it has several.
    Returns: a source with the rows in their order, and their keys, identities, labels,
      keypoints, further fields and tables.
    Raises: ValueError: as `store.open_split`; several splits; not a data set of faces.
    """
    path = os.fspath(path)
    folder, _, split = path.partition(":")
    data_dir, name = os.path.split(os.path.abspath(folder))
    builder = open_builder(data_dir, name)
    declared, splits = builder.info.features, sorted(builder.info.splits)
    if not split and len(splits) > 1:
        raise ValueError(
            f"one split of {path} must be named, for it has {splits}; "
            f"got none; write {path}:{splits[0]}"
        )
    split = split or splits[0]
    rows = open_split(data_dir, name, split)
    standard = face_features({})
    if not set(standard) <= set(declared):
        raise ValueError(
            f"{folder} must be a data set of faces; got one with "
            f"{sorted(declared)}; import it with kprpe-jax import"
        )
    extra = {key: declared[key] for key in declared if key not in standard}

    def read(start: int) -> Iterator[Record]:
        return (_record(row, extra) for row in read_rows(rows, start))

    info = os.path.join(builder.data_dir, "dataset_info.json")
    return RecordSource(
        read,
        state=f"{split} {file_state(info)}",
        count=len(rows),
        extra=extra,
        tables=read_tables(data_dir, name),
    )


def _record(row: dict[str, np.ndarray], extra: dict[str, Any]) -> Record:
    label = int(row["label"])
    name = row["identity"].item().decode(errors="surrogateescape")
    return Record(
        row["key"].item().decode(errors="surrogateescape"),
        row["image"].item(),
        NO_IDENTITY if label == NO_IDENTITY else name,
        {key: _value(row[key]) for key in extra},
        label=label,
        keypoints=row["keypoints"] if row["has_keypoints"] else None,
    )


def _value(value: np.ndarray) -> Any:
    return value.item() if value.ndim == 0 else value
