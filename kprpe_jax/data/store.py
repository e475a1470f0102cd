"""Prepared data sets on disk, opened for random access.

A data set `name` lives in `data_dir/name/<version>/` as TFDS writes it:
ArrayRecord shards, features.json and dataset_info.json.
"""

import bisect
import difflib
import itertools
import os
from collections.abc import Sequence

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module

from kprpe_jax.core.npz import read_npz
from kprpe_jax.core.paths import as_path, bucket_errors, is_bucket, local_file
from kprpe_jax.data.rows import RandomAccessRows

TABLES = "tables.npz"  # beside the rows of an import


class StoredRows(RandomAccessRows):
    """Rows of one split with random access; errors name the shard.

    Args:
      source: the TFDS data source.
      shards: the split's file instructions, in order.
    """

    def __init__(self, source: Sequence, shards: Sequence):
        self._source = source
        features = source.dataset_info.features
        self._dtypes = {key: features[key].np_dtype for key in features}
        self._files = [os.fspath(shard.filename) for shard in shards]
        self._ends = list(itertools.accumulate(shard.take for shard in shards))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitems__(self, rows: Sequence[int]) -> list[dict[str, np.ndarray]]:
        """Return several rows, as the features declare, with one read per shard."""
        rows = [int(row) for row in rows]
        try:
            examples = self._source.__getitems__(rows)
        except Exception as error:
            # Which exception a damaged shard raises depends on where the damage
            # is (ArrayRecord, zlib, protobuf): find the row, whatever it was.
            raise self._explain(rows, error) from error
        # TFDS returns scalars as Python numbers, without their declared type.
        return [
            {key: np.asarray(x, self._dtypes[key]) for key, x in example.items()}
            for example in examples
        ]

    def _explain(self, rows: Sequence[int], error: Exception) -> Exception:
        for row in rows:
            if not 0 <= row < len(self):
                return IndexError(f"row {row} of {len(self)}")
            try:
                self._source[row]
            except Exception as e:
                path = self._files[bisect.bisect_right(self._ends, row)]
                what = "is corrupt" if not is_bucket(path) else "cannot be read"
                return ValueError(
                    f"{path} {what} at row {row} of the split "
                    f"({_first_line(e)}); {_advice(path)}"
                )
        return error


def open_split(data_dir: str | os.PathLike, name: str, split: str) -> StoredRows:
    """Open one split of a prepared data set.

    Args:
      data_dir: the folder that holds all data sets, also gs://BUCKET/DIR.
      name: of the data set.
      split: of TFDS, as "train", "test", "train[:1000]".
    Returns: random-access rows: `len`, `[i]` -> dict of arrays.
    Raises: ValueError: no such folder, data set or split; an unfinished data set;
      a shard that is missing, truncated or not of the recorded length. A row
      that turns out damaged when read raises ValueError, too.
    """
    builder = open_builder(data_dir, name)
    folder = os.fspath(builder.data_dir)
    try:
        shards = builder.info.splits[split].file_instructions
    except (KeyError, ValueError) as e:
        raise ValueError(
            f"the split must be one of {sorted(builder.info.splits)}, or a "
            f"slice of one as 'train[:100]'; got {split!r} for {folder} "
            f"({_first_line(e)}); choose one that exists"
        ) from e
    if not shards:
        raise ValueError(
            f"a split must have at least one row; got none for {split!r} "
            f"of {folder}; choose another split"
        )
    for shard in shards:
        _check_shard(os.fspath(shard.filename), shard.examples_in_shard)
    return StoredRows(builder.as_data_source(split=split), shards)


def open_builder(data_dir: str | os.PathLike, name: str) -> tfds.core.DatasetBuilder:
    """Open what TFDS says about the newest version of a data set.

    Raises: ValueError: no such data set, an unfinished or damaged one.
    """
    folder = newest_version(os.fspath(data_dir), name)
    try:
        with bucket_errors(folder):
            return tfds.builder_from_directory(folder)
    except Exception as e:  # JSON, protobuf and TFDS errors alike
        if is_bucket(folder) and isinstance(e, OSError):
            raise
        raise ValueError(
            f"{folder} must hold TFDS's dataset_info.json and "
            f"features.json; reading them failed ({_first_line(e)}); delete the folder "
            "and prepare the data set again"
        ) from e


def newest_version(data_dir: str, name: str) -> str:
    """Return the folder of the newest finished version of a data set."""
    if data_dir.startswith("s3://"):
        raise ValueError(
            f"data.dir {data_dir}: ArrayRecord reads data sets from local folders and "
            "gs://; got s3://; mount the bucket (mount-s3) and give the mounted path"
        )
    sets = _folders(data_dir)
    if name not in sets:
        near = difflib.get_close_matches(name, sets, n=1)
        raise ValueError(
            f"{os.path.join(data_dir, name)} must be a prepared data set; "
            f"{data_dir} "
            + (f"holds {sets}" if sets else "is empty or does not exist")
            + (
                f"; did you mean {near[0]!r}?"
                if near
                else "; make it with kprpe-jax import or kprpe-jax synthesize, "
                f"--name {name} --data-dir {data_dir}"
            )
        )
    folder = os.path.join(data_dir, name)
    versions = [
        tfds.core.Version(v) for v in _folders(folder) if tfds.core.Version.is_valid(v)
    ]
    finished = [v for v in versions if is_finished(os.path.join(folder, str(v)))]
    if not finished:
        raise ValueError(
            f"{folder} must hold a finished version; got "
            f"{_folders(folder) or 'nothing'}; prepare the data set again"
        )
    return os.path.join(folder, str(max(finished)))


def only_split(data_dir: str | os.PathLike, name: str) -> str:
    """Return the split of a data set that has one, as imports of faces have.

    Raises: ValueError: as `open_builder`; several splits.
    """
    splits = sorted(open_builder(data_dir, name).info.splits)
    if len(splits) != 1:
        raise ValueError(
            f"{name} must have one split, as an import of faces; got "
            f"{splits}; choose another data set"
        )
    return splits[0]


def read_tables(data_dir: str | os.PathLike, name: str) -> dict[str, np.ndarray]:
    """Read the tables that an import keeps beside its rows; {} where there are none.

    Raises: ValueError: as `newest_version`; a damaged file.
    """
    path = os.path.join(newest_version(os.fspath(data_dir), name), TABLES)
    if not as_path(path).exists():
        return {}
    try:
        return read_npz(local_file(path))
    except ValueError as e:
        raise ValueError(
            f"{path} must hold the tables of an import; got {e}; delete "
            "the data set's folder and prepare it again"
        ) from e


def is_finished(path: str | os.PathLike) -> bool:
    """Whether the folder of a version holds a whole data set."""
    with bucket_errors(path):
        return (as_path(path) / "dataset_info.json").is_file()


def _folders(path: str) -> list[str]:
    folder = as_path(path)
    with bucket_errors(path):
        if not folder.is_dir():
            return []
        return sorted(entry.name for entry in folder.iterdir() if entry.is_dir())


def _check_shard(path: str, rows: int) -> None:
    """Raise ValueError unless the ArrayRecord file opens and has `rows` records."""
    problem = None
    if not as_path(path).is_file():
        problem = "is missing"
    else:
        try:
            reader = array_record_module.ArrayRecordReader(path)
            if reader.num_records() != rows:
                problem = f"must hold {rows} rows; got {reader.num_records()}"
            reader.close()
        except Exception as e:  # the bindings raise whatever the C++ status was
            problem = f"is truncated or corrupt ({_first_line(e)})"
    if problem:
        raise ValueError(f"{path} {problem}; {_advice(path)}")


def _advice(path: str) -> str:
    """What to do about a shard that cannot be read."""
    if is_bucket(path):
        return "look at the bucket, or copy the data set there again"
    return "delete the data set's folder and prepare it again"


def _first_line(error: Exception) -> str:
    text = str(error).strip().split("\n")[0].split(";")[0]
    return text[:160] or type(error).__name__
