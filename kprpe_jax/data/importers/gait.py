"""Import gait sequences: their splits, the data set, the report."""

import collections
import json
import os
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import tqdm

from kprpe_jax.data.gait_rows import GaitRows, GaitSequence
from kprpe_jax.data.importers.gait_folder import (
    Settings,
    find_sequences,
    read_sequence,
)
from kprpe_jax.data.importers.gait_joints import open_joints
from kprpe_jax.data.importers.progress import REPORT, write_json
from kprpe_jax.data.importers.record import RejectedRecord
from kprpe_jax.data.prepare import write
from kprpe_jax.data.read_photos import visible_names


class Split(NamedTuple):
    """The people and sequences of a split.

    Attributes:
      keys: of its sequences, person by person.
      probes: those of them that are searched for.
    """

    keys: list[str]
    probes: set[str]


class GaitSource(NamedTuple):
    """Sequences of a folder, ready to be written.

    Attributes:
      folder: of all people.
      splits: from `make_splits`.
      settings: of `read_sequence`.
      rejected: people, sequences and probes that gave nothing.
      others: files that are in no person's folder, which never end an import.
    """

    folder: str
    splits: dict[str, Split]
    settings: Settings
    rejected: tuple[RejectedRecord, ...] = ()
    others: tuple[RejectedRecord, ...] = ()
    noun = "sequences"

    def write(
        self, *, name: str, data_dir: str | os.PathLike, on_error: str = "fail"
    ) -> dict[str, Any]:
        """Write sequences as a data set; it is there whole or not at all.

        Args:
          name, data_dir: of the data set.
          on_error: "fail" at the first bad entry, or "skip": leave out what is bad.
        Returns: the report, which is also in the data set's metadata and in its
          import_report.json: rows and identities; sequences and people of each split;
          `bad`, kind -> count and entries.
        Raises: ValueError: a bad entry under "fail"; a split without a good sequence; a
          name in use.
        """
        report: dict[str, Any] = {
            "source": self.folder, "rows": 0, "identities": 0, "bad": {}
        }  # fmt: skip

        def note(found: Iterable[RejectedRecord], on_error: str = on_error) -> None:
            for entry in found:
                if on_error == "fail":
                    raise ValueError(
                        f"import: every entry must be good; got {entry.key!r} with "
                        f"{entry.kind} ({entry.reason}); repair it or pass "
                        "--on-error skip"
                    )
                kind = report["bad"].setdefault(entry.kind, {"count": 0, "entries": []})
                kind["count"] += 1
                kind["entries"].append([entry.key, entry.reason])

        def read(split: str) -> Iterator[GaitSequence]:
            counts = collections.Counter()
            keys, probes = self.splits[split]
            for key in tqdm.tqdm(keys, split, unit=" sequences", disable=None):
                sequence, found = read_sequence(
                    self.folder, key, self.settings, is_probe=key in probes
                )
                note(found)
                if sequence is not None:
                    counts[sequence.identity] += 1
                    yield sequence
            if not counts:
                raise ValueError(
                    f"import: split {split} must have a good sequence; got none of "
                    f"{len(keys)}; check the source and the partition"
                )
            report[split] = {"people": len(counts), "sequences": counts.total()}
            report["rows"] += counts.total()
            report["identities"] += len(counts)

        note(self.rejected)
        note(self.others, "skip")
        folder = write(
            GaitRows,
            name,
            data_dir,
            size=self.settings.size,
            splits={split: lambda split=split: read(split) for split in self.splits},
            description=f"Gait sequences of {os.path.basename(self.folder)}.",
            metadata={"report": report},
        )
        write_json(os.path.join(folder, REPORT), report)
        return report


def open_gait_folder(
    folder: str | os.PathLike,
    *,
    image_size: tuple[int, int] = (64, 44),
    fit: str = "height",
    joints: str | None = None,
    joint_units: str = "pixel",
    min_joint_score: float = 0.1,
    partition: str | None = None,
    test_identities: int = 0,
) -> GaitSource:
    """Open a folder of people with sequences below them (`gait_folder`).

    Args:
      folder: of all people.
      image_size: (height, width) of the silhouettes, pixels.
      fit: of `fit_frames`.
      joints: an .npz, a CSV or a folder of pickles (`open_joints`); None = no joints.
      joint_units: "pixel" of the frames, or "fraction".
      min_joint_score: joints that score less are missing.
      partition: JSON with the lists TRAIN_SET, TEST_SET and, optionally, PROBE_SET, as
        OpenGait's; None = by `test_identities`.
      test_identities: how many people, the last by name, are in the split "test".
    Raises: ValueError: a folder, partition or joints of another form.
    """
    splits, rejected = make_splits(
        find_sequences(folder),
        partition=_read_partition(partition),
        test_identities=test_identities,
    )
    settings = Settings(
        size=image_size,
        fit=fit,
        joints=joints and open_joints(joints, min_score=min_joint_score),
        joint_units=joint_units,
    )
    folder = os.fspath(folder)
    others = tuple(
        RejectedRecord(name, "no sequence", "the file is in no person's folder")
        for name in visible_names(folder)
        if not os.path.isdir(os.path.join(folder, name))
    )
    return GaitSource(folder, splits, settings, tuple(rejected), others)


def make_splits(
    people: dict[str, list[str]],
    *,
    partition: dict[str, list[str]] | None = None,
    test_identities: int = 0,
) -> tuple[dict[str, Split], list[RejectedRecord]]:
    """Divide people into train and test, and sequences into probes and gallery.

    Args:
      people: from `find_sequences`.
      partition: TRAIN_SET and TEST_SET list people; PROBE_SET, if there, sequences, as
        "0001/nm-01/090" or "0001-nm-01-090". None = by `test_identities`.
      test_identities: how many people, the last by name, are tested on.
    Returns: splits that have people; the sequences of people in none or in both, who
      are in none then, people without sequences and probes without one.
    Raises: ValueError: a partition of another form, or that names none of the people;
      too many test identities.
    """
    if partition is None:
        names = list(people)
        if not 0 <= test_identities <= len(names):
            raise ValueError(
                f"import: test_identities must lie in 0..{len(names)}; got "
                f"{test_identities}; change it"
            )
        cut = len(names) - test_identities
        partition = {"TRAIN_SET": names[:cut], "TEST_SET": names[cut:]}
    good = all(
        isinstance(partition.get(name), list) for name in ("TRAIN_SET", "TEST_SET")
    )
    if not good:
        raise ValueError(
            "import: a partition must be an object with the lists TRAIN_SET and "
            f"TEST_SET; got {sorted(partition)}; check the file"
        )
    bad = [
        RejectedRecord(person, "empty identity", "its folder holds no sequence")
        for person, keys in people.items()
        if not keys
    ]
    named = {*partition["TRAIN_SET"], *partition["TEST_SET"]}
    bad += [
        RejectedRecord(key, "in no split", "the partition does not name this person")
        for person, keys in people.items()
        if person not in named
        for key in keys
    ]
    bad += [
        RejectedRecord(
            person, "missing identity", "the partition names it, no folder does"
        )
        for person in sorted(named - set(people))
    ]
    both = {*partition["TRAIN_SET"]} & {*partition["TEST_SET"]}
    bad += [
        RejectedRecord(
            key, "in both splits", "the partition trains and tests on this person"
        )
        for person, keys in people.items()
        if person in both
        for key in keys
    ]
    if not named & set(people):
        raise ValueError(
            "import: the partition must name people of the source; of "
            f"{', '.join(sorted(named)[:3])} ... none is among {', '.join(people)[:60]}"
            " ...; give the partition of this data set"
        )
    splits = {}
    for split in ("train", "test"):
        listed = {*partition[f"{split.upper()}_SET"]} - both
        members = [person for person in people if person in listed]
        keys = [key for person in members for key in people[person]]
        if keys:
            splits[split] = Split(keys, {people[p][0] for p in members if people[p]})
    if "PROBE_SET" in partition and "test" in splits:
        wanted = {probe.replace("/", "-") for probe in partition["PROBE_SET"]}
        keys = {key.replace("/", "-"): key for key in splits["test"].keys}
        splits["test"] = splits["test"]._replace(
            probes={keys[probe] for probe in wanted if probe in keys}
        )
        bad += [
            RejectedRecord(
                probe, "missing probe", "the partition names it, no folder does"
            )
            for probe in sorted(wanted - set(keys))
        ]
    return splits, bad


def _read_partition(path: str | None) -> dict[str, list[str]] | None:
    if path is None:
        return None
    try:
        with open(path, encoding="utf-8") as file:
            partition = json.load(file)
    except (OSError, ValueError) as e:
        raise ValueError(
            f"import: {path} must be a JSON file of people; got {e}; fetch it again"
        ) from e
    if not isinstance(partition, dict):
        raise ValueError(
            f"import: {path} must hold an object with TRAIN_SET and TEST_SET; got "
            f"{type(partition).__name__}; check the file"
        )
    return partition
