"""Imported faces on disk as a TFDS data set, written shard by shard.

TFDS's own writer starts over after a kill, and shuffles all images through temporary
files. Here rows stay in the source's order and an import that was stopped
goes on after its last finished shard (`progress`). Metadata come last, then one rename
makes the data set visible.
"""

import contextlib
import itertools
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
import tqdm
from array_record.python import array_record_module
from tensorflow_datasets.core import example_serializer

from kprpe_jax.data.importers import progress
from kprpe_jax.data.importers.check import Checked, check_all
from kprpe_jax.data.importers.landmarks import Landmarks
from kprpe_jax.data.importers.record import NO_IDENTITY, RecordSource
from kprpe_jax.data.importers.report import Shard, make_report
from kprpe_jax.data.landmark_layouts import NUM_KEYPOINTS
from kprpe_jax.data.pair_sets import find_pairs
from kprpe_jax.data.store import TABLES

VERSION = "1.0.0"
ON_ERROR = ("fail", "skip")


def face_features(extra: Mapping[str, Any], num_landmarks: int = 0) -> dict[str, Any]:
    """Declare the rows of an imported data set.

    image: the encoded bytes as they were, for `decode.decode_rgb`; declared as TFDS's
      Image they would be decoded by whatever library is there, each with its own idea
      of orientation and color.
    label: int32, the source's number or, for names, the order of first appearance; -1 =
      unknown.
    identity: the name or number as text, "" = unknown.
    key: the source's id.
    keypoints: float32 [5, 2], fractions of width and height, zeros where unknown.
    has_keypoints: bool.
    landmarks: only with a table of other points than these five: float32 [K, 2],
      fractions, zeros where unknown.
    landmark_mask: beside them, bool [K], which are known.

    Args:
      extra: the source's own fields: `int` (as int64), `str` or a TFDS feature.
      num_landmarks: K; 0 = no such table.
    """
    if num_landmarks:
        dense = {
            "landmarks": tfds.features.Tensor(
                shape=(num_landmarks, 2), dtype=np.float32
            ),
            "landmark_mask": tfds.features.Tensor(
                shape=(num_landmarks,), dtype=np.bool_
            ),
        }
        extra = {**extra, **dense}
    kinds = {int: np.int64, str: tfds.features.Text()}
    return {
        "image": tfds.features.Text(),
        "label": np.int32,
        "identity": tfds.features.Text(),
        "key": tfds.features.Text(),
        "keypoints": tfds.features.Tensor(shape=(NUM_KEYPOINTS, 2), dtype=np.float32),
        "has_keypoints": np.bool_,
        **{name: kinds.get(kind, kind) for name, kind in extra.items()},
    }


def write_dataset(
    source: RecordSource,
    *,
    name: str,
    data_dir: str | os.PathLike,
    origin: Mapping[str, str],
    split: str = "train",
    landmarks: Landmarks | None = None,
    on_error: str = "fail",
    num_workers: int = 1,
    shard_rows: int = 65_536,
) -> dict[str, Any]:
    """Write a source as a data set, or go on where an earlier call was stopped.

    Args:
      source: the images.
      name: of the data set: small letters, digits and _, a letter first.
      data_dir: the folder that holds all data sets; made if absent.
      origin: what distinguishes this import from others: kind, paths, options.
      split: the one split that all rows go to.
      landmarks: table of the keypoints; None = the source's own, or none. One of other
        points is stored beside them as `landmarks`, in place of the source's, and gives
        the keypoints where its layout tells them (`five_keypoints`).
      on_error: "fail" at the first bad entry, or "skip" them. A record without row in
        the landmark table is kept without keypoints, and reported, where others are
        skipped. So is one in which a detector found no face.
      num_workers: decoding threads.
      shard_rows: rows of a shard; a stopped import repeats one shard at most.
    Returns: the report (`make_report`), which also stands in import_report.json in the
      data set's folder, with the source's tables, if any, in tables.npz.
    Raises: ValueError: a bad argument, a bad entry under "fail", no good entry at all,
      pairs of images that are not there, a landmark table that knows none of the
      images, another data set of this name, a source changed since the stopped import,
      another import at work, a full disk. The data set is not there then.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or not re.fullmatch(r"\w+", split):
        raise ValueError(
            "import: the name must be small letters, digits and _ with a letter "
            f"first, the split letters; got {name!r}, {split!r}; choose others"
        )
    if on_error not in ON_ERROR or num_workers < 1 or shard_rows < 1:
        raise ValueError(
            f"import: on_error must be one of {ON_ERROR}, num_workers and "
            f"shard_rows at least 1; got {on_error!r}, {num_workers}, {shard_rows}; "
            "change them"
        )
    landmarks = landmarks or source.landmarks
    origin = {**origin, "state": source.state, "split": split, "shard_rows": shard_rows}
    folder = os.path.join(data_dir, name)
    final = os.path.join(folder, VERSION)
    with progress.locked(folder), progress.kept_if_useful(folder) as work:
        if os.path.exists(final):
            return progress.finished_report(final, origin)
        shards = progress.finished_shards(work, origin)
        template = tfds.core.ShardedFileTemplate(
            data_dir=os.path.join(work, "data"),
            template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_INDEX}",
            dataset_name=name,
            split=split,
            filetype_suffix="array_record",
        )
        _write_shards(
            source, landmarks, work, template, shards, on_error, num_workers, shard_rows
        )
        if not any(shard.rows for shard in shards):
            faults = {bad[1] for shard in shards for bad in shard.bad}
            raise ValueError(
                "import: the source must have at least one good image; got "
                f"{sorted(faults) or 'no entry'}; check its path and kind"
            )
        if landmarks and not any(shard.from_table for shard in shards):
            first = next(iter(source.read(0)))
            raise ValueError(
                "import: the landmark table must know points of images of the source; "
                f"got rows such as {next(iter(landmarks.rows))!r} and images such as "
                f"{first.key!r}; give the table of these images"
            )
        report = make_report(shards, origin, len(landmarks.rows) if landmarks else 0)
        _write_metadata(source, landmarks, template, shards, report)
        if "pair_keys" in source.tables:
            _check_pairs(os.fspath(template.data_dir), name, split, source.tables)
        os.rename(template.data_dir, final)
    return report


def _write_shards(
    source: RecordSource,
    landmarks: Landmarks | None,
    work: str,
    template: tfds.core.ShardedFileTemplate,
    shards: list[Shard],
    on_error: str,
    num_workers: int,
    shard_rows: int,
) -> None:
    """Write the shards that are not there yet and add them to the list."""
    done = sum(shard.entries for shard in shards)
    labels = {n: i for i, n in enumerate(n for s in shards for n in s.names)}
    serialize = _serializer(_features(source, landmarks))
    num_landmarks = _num_landmarks(landmarks)
    entries = tqdm.tqdm(
        source.read(done),
        total=source.count,
        initial=done,
        unit=" images",
        disable=not sys.stderr.isatty(),
    )
    with contextlib.closing(check_all(entries, landmarks, num_workers)) as checked:
        for first in checked:
            path = template.sharded_filepath(shard_index=len(shards), num_shards=None)
            rest = itertools.chain([first], checked)
            shard = _write_shard(
                os.fspath(path),
                rest,
                serialize,
                labels,
                shard_rows,
                on_error,
                num_landmarks,
            )
            progress.add_shard(work, len(shards), shard)
            shards.append(shard)


def _write_shard(
    path: str,
    checked: Iterator[Checked],
    serialize: Callable[[dict[str, Any]], bytes],
    labels: dict[str, int],
    shard_rows: int,
    on_error: str,
    num_landmarks: int = 0,
) -> Shard:
    """Write the next rows to a file; add identities that are new to `labels`.

    Without a good row left there is no file: only the last shard can be so.
    """
    shard = Shard()
    found: set[int] = set()
    # One row per group, as TFDS writes: rows are read one by one, in any order.
    writer = array_record_module.ArrayRecordWriter(path, "group_size:1")
    try:
        for record, bad, keypoints, keypoints_from, size, landmarks in checked:
            shard.entries += 1
            if bad is not None:
                if on_error == "fail":
                    raise ValueError(
                        f"import: every entry must be good; got {bad.key!r} with "
                        f"{bad.kind} ({bad.reason}); repair it or pass --on-error skip"
                    )
                shard.bad.append(bad)
            if record is None:
                continue
            label = record.identity if record.label is None else record.label
            if isinstance(label, str):
                if label not in labels:
                    labels[label] = len(labels)
                    shard.names.append(label)
                label = labels[label]
            known = keypoints is not None
            row = {
                "image": record.image,
                "label": label,
                "identity": "" if label == NO_IDENTITY else _bytes(record.identity),
                "key": _bytes(record.key),
                "keypoints": keypoints if known else _unknown(NUM_KEYPOINTS),
                "has_keypoints": known,
                **record.extra,
            }
            if num_landmarks:
                if landmarks is None:
                    landmarks = _unknown(num_landmarks) * np.nan
                mask = ~np.isnan(landmarks).any(1)
                row["landmarks"] = np.where(mask[:, None], landmarks, np.float32(0))
                row["landmark_mask"] = mask
                shard.rows_with_landmarks += bool(mask.any())
                shard.rows_with_all_landmarks += bool(mask.all())
            writer.write(serialize(row))
            found.add(label)
            shard.rows += 1
            if known:
                counts = shard.keypoints_from
                counts[keypoints_from] = counts.get(keypoints_from, 0) + 1
            shard.no_identity += label == NO_IDENTITY
            shard.heights = _widen(shard.heights, size[0])
            shard.widths = _widen(shard.widths, size[1])
            if shard.rows == shard_rows:
                break
    finally:
        writer.close()  # raises, too, where the disk is full
    if not shard.rows:
        os.remove(path)
        return shard
    with open(path, "rb") as file:
        os.fsync(file.fileno())
    shard.bytes = os.path.getsize(path)
    shard.labels = sorted(found)
    return shard


def _num_landmarks(landmarks: Landmarks | None) -> int:
    """K of a table of other points than the five; 0 = there is none."""
    return landmarks.points.shape[1] if landmarks and landmarks.is_dense else 0


def _features(
    source: RecordSource, landmarks: Landmarks | None
) -> tfds.features.FeaturesDict:
    """The fields of the rows."""
    fields = face_features(source.extra, _num_landmarks(landmarks))
    return tfds.features.FeaturesDict(fields)


def _unknown(count: int) -> np.ndarray:
    return np.zeros((count, 2), np.float32)


def _write_metadata(
    source: RecordSource,
    landmarks: Landmarks | None,
    template: tfds.core.ShardedFileTemplate,
    shards: list[Shard],
    report: dict[str, Any],
) -> None:
    info = tfds.core.SplitInfo(
        name=template.split,
        shard_lengths=[shard.rows for shard in shards if shard.rows],
        num_bytes=sum(shard.bytes for shard in shards),
        filename_template=template,
    )
    tfds.folder_dataset.write_metadata(
        data_dir=template.data_dir,
        features=_features(source, landmarks),
        split_infos=[info],
        version=VERSION,
        filename_template=template,
        check_data=False,  # would need TensorFlow
        description="Faces imported from " + report["origin"].get("kind", "a source"),
        disable_shuffling=True,
    )
    if source.tables:
        np.savez(template.data_dir / TABLES, **source.tables)
    progress.write_json(os.fspath(template.data_dir / progress.REPORT), report)


def _check_pairs(
    folder: str, name: str, split: str, tables: Mapping[str, np.ndarray]
) -> None:
    """Raise ValueError where pairs name images that were not imported."""
    rows = tfds.builder_from_directory(folder).as_data_source(split=split)
    keys = [row["key"].decode(errors="surrogateescape") for row in rows]
    find_pairs(keys, tables["pair_keys"].astype(str), f"--pairs: {name}")


def _serializer(
    declared: tfds.features.FeaturesDict,
) -> Callable[[dict[str, Any]], bytes]:
    proto = example_serializer.ExampleSerializer(declared.get_serialized_info())

    def serialize(row: dict[str, Any]) -> bytes:
        example = proto.get_tf_example(declared.encode_example(row))
        # Else the order of the fields, and so the file, differs between processes.
        return example.SerializeToString(deterministic=True)

    return serialize


def _widen(bounds: list[int], value: int) -> list[int]:
    return [min([*bounds, value]), max([*bounds, value])]


def _bytes(text: str | int) -> bytes:
    return str(text).encode(errors="surrogateescape")
