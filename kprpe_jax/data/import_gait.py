"""Import gait sequences as a TFDS data set.

    python -m kprpe_jax.data.import_gait --source FOLDER --name mine --data_dir data \
        [--joints TABLE] [--partition FILE.json] [--fit person] [--on_error skip]

FOLDER holds a folder for each person, with sequences below it: OpenGait's pickles, or
images of frames (`importers.gait_folder`). Joints come from an .npz, a CSV or a folder
of pickles (`importers.gait_joints`). A partition names TRAIN_SET, TEST_SET and, if it
likes, PROBE_SET, as OpenGait's do; without one the last --test_identities people are
tested on. Without PROBE_SET everybody's first sequence is the probe.

What was found, and what was left out and why, stands in the data set's metadata under
`report`.
"""

import collections
import json
import os
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

from absl import app, flags, logging

from kprpe_jax.data import store
from kprpe_jax.data.gait_rows import GaitRows, GaitSequence
from kprpe_jax.data.importers.dataset import ON_ERROR
from kprpe_jax.data.importers.gait_folder import (
    UNITS,
    Settings,
    find_sequences,
    read_sequence,
)
from kprpe_jax.data.importers.gait_frames import FITS
from kprpe_jax.data.importers.gait_joints import open_joints
from kprpe_jax.data.importers.record import RejectedRecord

_SOURCE = flags.DEFINE_string("source", None, "Folder with a folder per person.")
_NAME = flags.DEFINE_string("name", None, "Name of the data set.")
_DATA_DIR = flags.DEFINE_string("data_dir", "data", "Folder of all data sets.")
_JOINTS = flags.DEFINE_string("joints", None, "An .npz, a CSV or a folder of pickles.")
_JOINT_UNITS = flags.DEFINE_enum(
    "joint_units", "pixel", UNITS, "Of the joints: pixels of the frames, or fractions."
)
_MIN_SCORE = flags.DEFINE_float("min_score", 0.1, "Joints that score less are missing.")
_PARTITION = flags.DEFINE_string("partition", None, "JSON of people and probes.")
_TEST_IDENTITIES = flags.DEFINE_integer(
    "test_identities", 0, "Without a partition: the last people by name are tested on."
)
_SIZE = flags.DEFINE_list("size", ["64", "44"], "Height and width in pixels.")
_FIT = flags.DEFINE_enum(
    "fit", "height", FITS, "Frames of the right height, or cut each to its person."
)
_ON_BAD = flags.DEFINE_enum("on_error", "fail", ON_ERROR, "At a bad entry.")
flags.mark_flags_as_required(["source", "name"])


class Split(NamedTuple):
    """Who and what belongs to a split.

    Attributes:
      keys: of its sequences, person by person.
      probes: those of them that are searched for.
    """

    keys: list[str]
    probes: set[str]


def import_gait(
    source: str | os.PathLike,
    splits: dict[str, Split],
    settings: Settings,
    *,
    name: str,
    data_dir: str | os.PathLike,
    on_error: str = "fail",
    bad: tuple[RejectedRecord, ...] = (),
) -> dict[str, Any]:
    """Write sequences as a data set; it is there whole or not at all.

    Args:
      source: folder of all people.
      splits: from `make_splits`.
      settings: of `read_sequence`.
      name, data_dir: of the data set.
      on_error: "fail" at the first bad entry, or "skip": leave out what is bad.
      bad: entries that were bad before.
    Returns: the report: sequences and people of each split; `bad`, kind -> count and
      entries.
    Raises: ValueError: a bad entry under "fail"; a split without a good sequence; a
      name in use.
    """
    report: dict[str, Any] = {"source": os.fspath(source), "bad": {}}

    def note(found: list[RejectedRecord] | tuple[RejectedRecord, ...]) -> None:
        for entry in found:
            if on_error == "fail":
                raise ValueError(
                    f"import_gait: every entry must be good; got {entry.key!r} with "
                    f"{entry.kind} ({entry.reason}); repair it or pass --on_error skip"
                )
            kind = report["bad"].setdefault(entry.kind, {"count": 0, "entries": []})
            kind["count"] += 1
            kind["entries"].append([entry.key, entry.reason])

    def read(split: str) -> Iterator[GaitSequence]:
        counts = collections.Counter()
        for key in splits[split].keys:
            is_probe = key in splits[split].probes
            sequence, found = read_sequence(source, key, settings, is_probe=is_probe)
            note(found)
            if sequence is not None:
                counts[sequence.identity] += 1
                yield sequence
        if not counts:
            raise ValueError(
                f"import_gait: split {split} must have a good sequence; got none of "
                f"{len(splits[split].keys)}; check the source and the partition"
            )
        report[split] = {"people": len(counts), "sequences": counts.total()}

    note(bad)
    rows = type("ImportedGait", (GaitRows,), {"name": name}, skip_registration=True)
    builder = rows(
        size=settings.size,
        splits={split: lambda split=split: read(split) for split in splits},
        description=f"Gait sequences imported from {os.path.basename(source)}.",
        metadata={"report": report},
        data_dir=os.fspath(data_dir),
        file_format="array_record",
    )
    if os.path.exists(builder.data_dir):
        raise ValueError(
            f"import_gait: {builder.data_dir} must not exist yet; got a data set; "
            "choose another name or delete the folder"
        )
    store.write(builder)
    return report


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
    Returns: splits that have somebody; people in none, people without sequences and
      probes without one.
    Raises: ValueError: a partition of another form; too many test identities.
    """
    if partition is None:
        names = list(people)
        if not 0 <= test_identities <= len(names):
            raise ValueError(
                f"import_gait: test_identities must lie in 0..{len(names)}; got "
                f"{test_identities}; change it"
            )
        cut = len(names) - test_identities
        partition = {"TRAIN_SET": names[:cut], "TEST_SET": names[cut:]}
    good = all(
        isinstance(partition.get(name), list) for name in ("TRAIN_SET", "TEST_SET")
    )
    if not good:
        raise ValueError(
            "import_gait: a partition must be an object with the lists TRAIN_SET and "
            f"TEST_SET; got {sorted(partition)}; check the file"
        )
    bad = [
        RejectedRecord(person, "empty identity", "its folder holds no sequence")
        for person, keys in people.items()
        if not keys
    ]
    named = {*partition["TRAIN_SET"], *partition["TEST_SET"]}
    bad += [
        RejectedRecord(person, "in no split", "the partition does not name this person")
        for person in people
        if person not in named
    ]
    bad += [
        RejectedRecord(
            person, "missing identity", "the partition names it, no folder does"
        )
        for person in sorted(named - set(people))
    ]
    splits = {}
    for split in ("train", "test"):
        members = [p for p in people if p in set(partition[f"{split.upper()}_SET"])]
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
            f"import_gait: {path} must be a JSON file of people; got {e}; fetch it "
            "again"
        ) from e
    if not isinstance(partition, dict):
        raise ValueError(
            f"import_gait: {path} must hold an object with TRAIN_SET and TEST_SET; got "
            f"{type(partition).__name__}; check the file"
        )
    return partition


def _run() -> dict[str, Any]:
    if len(_SIZE.value) != 2 or not all(text.isdecimal() for text in _SIZE.value):
        raise ValueError(
            f"import_gait: --size must be HEIGHT,WIDTH; got {','.join(_SIZE.value)}"
        )
    people = find_sequences(_SOURCE.value)
    splits, bad = make_splits(
        people,
        partition=_read_partition(_PARTITION.value),
        test_identities=_TEST_IDENTITIES.value,
    )
    settings = Settings(
        size=(int(_SIZE.value[0]), int(_SIZE.value[1])),
        fit=_FIT.value,
        joints=_JOINTS.value and open_joints(_JOINTS.value, min_score=_MIN_SCORE.value),
        joint_units=_JOINT_UNITS.value,
    )
    return import_gait(
        _SOURCE.value,
        splits,
        settings,
        name=_NAME.value,
        data_dir=_DATA_DIR.value,
        on_error=_ON_BAD.value,
        bad=tuple(bad),
    )


def main(argv: list[str]) -> None:
    """Import what the flags name and say what came of it."""
    logging.set_verbosity(logging.WARNING)
    try:
        if argv[1:]:
            raise ValueError(
                f"import_gait: everything is given by flags; got {argv[1:]}; see --help"
            )
        report = _run()
    except ValueError as e:
        sys.exit(f"error: {e}")
    parts = [
        f"{split} {report[split]['sequences']} sequences of {report[split]['people']}"
        for split in ("train", "test")
        if split in report
    ]
    bad = ", ".join(f"{kind} {b['count']}" for kind, b in report["bad"].items())
    folder = os.path.join(_DATA_DIR.value, _NAME.value)
    sys.stdout.write(
        f"{_NAME.value}: {', '.join(parts)}; bad: {bad or 'none'}; in {folder}\n"
    )


if __name__ == "__main__":
    app.run(main)
