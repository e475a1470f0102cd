"""Prepared data sets on disk: write once, open for random access.

A data set `name` lives in `data_dir/name/<version>/` as TFDS writes it:
ArrayRecord shards, features.json and dataset_info.json.
"""

import bisect
import contextlib
import difflib
import itertools
import os
import sys
import tempfile
from collections.abc import Sequence

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module

from kprpe_jax.data import builders
from kprpe_jax.data.synthetic import walker_builder
from kprpe_jax.data.synthetic.builder import ARGUMENTS, SyntheticFaces

# Name -> (TFDS builder, the arguments that it needs, those that it can do without).
BUILDERS = {
    "digits": (builders.Digits, (), ()),
    "mnist": (builders.Mnist, ("idx_dir",), ()),
    "synthetic_faces": (SyntheticFaces, (), ARGUMENTS),
    "synthetic_walkers": (
        walker_builder.SyntheticWalkers,
        (),
        walker_builder.ARGUMENTS,
    ),
}


def prepare(name: str, data_dir: str | os.PathLike, **builder_args) -> str:
    """Write a data set to disk unless it is already there.

    TFDS writes into a folder `incomplete.*` beside the final one and renames it
    as its last act, so a process killed in the middle leaves nothing that looks
    finished.

    Args:
      name: "digits", "mnist", "synthetic_faces" or "synthetic_walkers".
      data_dir: the folder that holds all data sets; made if absent.
      **builder_args: the builder's own, as `idx_dir` for "mnist" or `num_identities`
        for what is drawn.
    Returns: the data set's folder.
    Raises: ValueError: unknown name, builder arguments missing or surplus (when
      there is something to prepare), bad source files (see the builder), a drawn
      set that is there, but from other arguments.
    """
    if name not in BUILDERS:
        near = difflib.get_close_matches(name, BUILDERS, n=1)
        raise ValueError(
            f"prepare: the data set must be one of {sorted(BUILDERS)}; got {name!r}; "
            + (f"did you mean {near[0]!r}?" if near else "choose one of these")
        )
    builder_class, needed, optional = BUILDERS[name]
    folder = os.path.join(data_dir, name)
    path = os.path.join(folder, str(builder_class.VERSION))
    if _is_finished(path):
        _check_same(path, {k: v for k, v in builder_args.items() if k in optional})
        return path
    if set(builder_args) - set(optional) != set(needed):
        raise ValueError(
            f"prepare: {name!r} is not in {os.fspath(data_dir)} yet and is prepared "
            f"from the arguments {list(needed)}; got {sorted(builder_args)}; give "
            "exactly these"
        )
    builder = builder_class(
        data_dir=os.fspath(data_dir), file_format="array_record", **builder_args
    )
    write(builder)
    return path


def write(builder: tfds.core.DatasetBuilder) -> None:
    """Have a builder write its data set; it is there whole or not at all."""
    folder = os.path.dirname(builder.data_dir)
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    # Without this TFDS asks a cloud bucket for a prepared copy.
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    try:
        # TFDS wants a download folder and speaks of downloads; there are none.
        with tempfile.TemporaryDirectory() as unused, contextlib.redirect_stdout(None):
            builder.download_and_prepare(download_dir=unused, download_config=config)
    except BaseException:
        with contextlib.suppress(OSError):
            os.rmdir(folder)  # only if empty: bad source files leave no trace
        raise


def prepare_embedded(name: str, data_dir: str | os.PathLike, **builder_args) -> None:
    """Write a data set that needs no files from the user, unless it is there.

    Other data sets are left alone. Call it in one process only. The arguments are those
    of `prepare`.
    """
    if name in BUILDERS and not BUILDERS[name][1]:
        prepare(name, data_dir, **builder_args)


def _check_same(path: str, wanted: dict[str, object]) -> None:
    """Raise ValueError unless a data set was made from the wanted arguments."""
    if not wanted:
        return
    used = tfds.builder_from_directory(path).info.metadata
    used = {key: used.get(key) for key in wanted}
    if used != wanted:
        raise ValueError(
            f"prepare: {path} must have been made from {wanted}; it was from {used}; "
            "delete it or choose another data_dir (data.dir of a config)"
        )


class StoredRows(Sequence):
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

    def __getitem__(self, row: int) -> dict[str, np.ndarray]:
        """Return one row: a dict of arrays, as the features declare."""
        return self.__getitems__([row])[0]

    def __getitems__(self, rows: Sequence[int]) -> list[dict[str, np.ndarray]]:
        """Return several rows with one read per shard."""
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
                return ValueError(
                    f"open_split: {path} is corrupt at row {row} of the split "
                    f"({_first_line(e)}); delete the data set's folder and prepare it "
                    "again"
                )
        return error


def open_split(data_dir: str | os.PathLike, name: str, split: str) -> StoredRows:
    """Open one split of a prepared data set.

    Args:
      data_dir: the folder that holds all data sets.
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
            f"open_split: the split must be one of {sorted(builder.info.splits)}, or a "
            f"slice of one as 'train[:100]'; got {split!r} for {folder} "
            f"({_first_line(e)}); choose one that exists"
        ) from e
    if not shards:
        raise ValueError(
            f"open_split: a split must have at least one row; got none for {split!r} "
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
        return tfds.builder_from_directory(folder)
    except Exception as e:  # JSON, protobuf and TFDS errors alike
        raise ValueError(
            f"open_split: {folder} must hold TFDS's dataset_info.json and "
            f"features.json; reading them failed ({_first_line(e)}); delete the folder "
            "and prepare the data set again"
        ) from e


def newest_version(data_dir: str, name: str) -> str:
    """Return the folder of the newest finished version of a data set."""
    sets = _folders(data_dir)
    if name not in sets:
        near = difflib.get_close_matches(name, sets, n=1)
        raise ValueError(
            f"open_split: {os.path.join(data_dir, name)} must be a prepared data set; "
            f"{data_dir} "
            + (f"holds {sets}" if sets else "is empty or does not exist")
            + (
                f"; did you mean {near[0]!r}?"
                if near
                else f"; run python -m kprpe_jax.data.prepare --name {name} "
                f"--data_dir {data_dir}, or kprpe_jax.data.import_faces for faces, "
                "kprpe_jax.data.import_gait for gait"
            )
        )
    folder = os.path.join(data_dir, name)
    versions = [
        tfds.core.Version(v) for v in _folders(folder) if tfds.core.Version.is_valid(v)
    ]
    finished = [v for v in versions if _is_finished(os.path.join(folder, str(v)))]
    if not finished:
        raise ValueError(
            f"open_split: {folder} must hold a finished version; got "
            f"{_folders(folder) or 'nothing'}; prepare the data set again"
        )
    return os.path.join(folder, str(max(finished)))


def _is_finished(path: str) -> bool:
    return os.path.isfile(os.path.join(path, "dataset_info.json"))


def _folders(path: str) -> list[str]:
    if not os.path.isdir(path):
        return []
    return sorted(entry.name for entry in os.scandir(path) if entry.is_dir())


def _check_shard(path: str, rows: int) -> None:
    """Raise ValueError unless the ArrayRecord file opens and has `rows` records."""
    problem = None
    if not os.path.isfile(path):
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
        raise ValueError(
            f"open_split: {path} {problem}; delete the data set's folder and prepare "
            "it again"
        )


def _first_line(error: Exception) -> str:
    text = str(error).strip().split("\n")[0].split(";")[0]
    return text[:160] or type(error).__name__


class Rows(Sequence):
    """Rows in memory, with the same access as a `StoredRows`.

    Args:
      arrays: name -> array [N, ...]; the same N for all.
    """

    def __init__(self, arrays: dict[str, np.ndarray]):
        self._arrays = arrays

    def __len__(self) -> int:
        return len(next(iter(self._arrays.values())))

    def __getitem__(self, row: int) -> dict[str, np.ndarray]:
        """Return one row: a dict of arrays."""
        return {key: array[row] for key, array in self._arrays.items()}

    def __getitems__(self, rows: Sequence[int]) -> list[dict[str, np.ndarray]]:
        """Return several rows."""
        return [self[row] for row in rows]


def read_all(source: Sequence) -> Rows:
    """Read a small source into memory, once from first to last.

    Args:
      source: random-access rows (`open_split`).
    """
    parts = []
    for start in range(0, len(source), 4096):
        rows = source.__getitems__(range(start, min(start + 4096, len(source))))
        parts.append({key: np.stack([r[key] for r in rows]) for key in rows[0]})
    return Rows({key: np.concatenate([p[key] for p in parts]) for key in parts[0]})
