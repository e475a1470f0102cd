"""Import faces, gait sequences or digits as a data set.

    kprpe-jax import folder --source PEOPLE --name mine --data-dir data

KIND is the form of the source:
  {kinds}.
A stopped import of faces goes on when the same command is run again. What was imported,
and what was skipped and why, is in import_report.json in the data set's folder.
"""

import argparse
import dataclasses
import os
import sys
import textwrap
from typing import Any

from kprpe_jax import registry
from kprpe_jax.commands import options as shared
from kprpe_jax.commands.galleries import close_account

__doc__ = __doc__.format(
    kinds=textwrap.fill(", ".join(registry.IMPORTERS), 80).replace("\n", "\n  ")
)

# Kind -> its own options; all kinds of faces have those of FACES, too.
OWN = {
    "insightface_rec": ("label",),
    "arrays": ("image_array", "label_array"),
    "gait": (
        *("image_size", "fit", "joints", "joint_units", "min_joint_score"),
        *("partition", "test_identities"),
    ),
}
UNITS = ("pixel", "fraction")
FACES = ("split", "pairs", "landmarks", "detector", "against", "model")
# A detector takes long: with it a stopped import repeats less.
_DETECTED_SHARD_ROWS, _SHARD_ROWS = 8192, 65_536


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options; those of one kind are None unless they are given."""
    parser.usage = "kprpe-jax import KIND --source PATH --name NAME [options]"
    add = parser.add_argument
    add("kind", choices=registry.IMPORTERS, metavar="KIND", help="form of the source")
    add("--source", metavar="PATH", required=True, help="file or folder to import")
    add("--name", required=True, help="of the data set")
    shared.add_data_dir(parser)
    shared.add_on_error(parser)

    add = parser.add_argument_group("faces").add_argument
    add("--split", help="that all images belong to (train)")
    add("--pairs", metavar="FILE", help="list of pairs in the form of LFW's pairs.txt")
    add("--num-workers", metavar="N", type=shared.positive, default=1,
        help="decoding threads (1)")  # fmt: skip

    add = parser.add_argument_group("keypoints of faces").add_argument
    add("--landmarks", metavar="FILE", help="table of five points, CSV or .npz")
    add("--landmark-units", metavar="UNIT", choices=UNITS, default="fraction",
        help="of the table: pixel or fraction (fraction)")  # fmt: skip
    add("--landmark-array", metavar="A", default="points", help="of the .npz (points)")
    group = parser.add_argument_group("keypoints by a detector")
    shared.add_detector(group, without="keypoints are those of the source or table")
    shared.add_faces(group)
    add = group.add_argument
    add("--detect", metavar="WHERE", choices=("missing", "all"), default="missing",
        help="in images with missing keypoints, or all (missing)")  # fmt: skip

    group = parser.add_argument_group("people and photos that another set has, too")
    group.add_argument("--against", metavar="NAME", nargs="+",
        help="data sets in the data directory to compare with")  # fmt: skip
    shared.add_model(group, required=False)

    add = parser.add_argument_group("kind insightface_rec").add_argument
    add("--label", metavar="N", type=int,
        help="which of a record's labels is the identity, from 0 (0)")  # fmt: skip

    add = parser.add_argument_group("kind arrays").add_argument
    add("--image-array", metavar="NAME", help="of the .npz (images)")
    add("--label-array", metavar="NAME", help="of the .npz (labels)")

    add = parser.add_argument_group("kind gait").add_argument
    add("--joints", metavar="FILE", help="an .npz, a CSV or a folder of pickles")
    add(
        "--joint-units", metavar="UNIT", choices=UNITS, help="pixel or fraction (pixel)"
    )
    add("--min-joint-score", metavar="X", type=float,
        help="joints that score less are missing (0.1)")  # fmt: skip
    add("--partition", metavar="FILE", help="JSON of TRAIN_SET, TEST_SET, PROBE_SET")
    add("--test-identities", metavar="N", type=int,
        help="without a partition, the last N people are the test (0)")  # fmt: skip
    add("--image-size", metavar="HxW", type=shared.image_size,
        help="of the silhouettes (64x44)")  # fmt: skip
    add("--fit", metavar="HOW", choices=("height", "person"),
        help="height: frames have it already; person: cut to it (height)")  # fmt: skip


def run(options: argparse.Namespace) -> None:
    """Run the import command."""
    own = _own_options(options)
    if options.model is not None and options.against is None:
        raise ValueError("--model: compares images with those of --against; give both")
    source = registry.resolve(registry.IMPORTERS[options.kind])(options.source, **own)
    from kprpe_jax.data.importers.record import RecordSource
    from kprpe_jax.data.importers.report import rejected, summarize
    from kprpe_jax.data.left_out import make_account
    from kprpe_jax.data.store import newest_version

    place = {"name": options.name, "data_dir": options.data_dir}
    for note in getattr(source, "notes", ()):
        sys.stderr.write(f"note: {options.source}: {note}\n")
    if isinstance(source, RecordSource):
        report = _write_faces(source, options, place)
    else:
        report = source.write(**place, on_error=options.on_error)
    folder = newest_version(options.data_dir, options.name)
    rows = rejected(report)
    close_account(
        rows,
        f"{options.name}: {summarize(report, source.noun)}",
        f"in {folder}",
        output=folder,
        account=make_account(rows, used=report["rows"]),
    )
    if options.against is not None:
        _compare(options, report)


def _compare(options: argparse.Namespace, report: dict[str, Any]) -> None:
    """Say which people and photos are in other data sets, too; add it to the report."""
    from kprpe_jax.data.importers.progress import REPORT, write_json
    from kprpe_jax.data.store import newest_version
    from kprpe_jax.evaluation.overlap import find_overlap
    from kprpe_jax.recognizers import load_recognizer

    recognizer = None if options.model is None else load_recognizer(options.model)
    found = {}
    for other in options.against:
        overlap = find_overlap(
            options.data_dir, options.name, other, recognizer=recognizer
        )
        found[other] = overlap.report()
        sys.stdout.write(f"{options.name} and {other}: {overlap.describe()}\n")
    path = os.path.join(newest_version(options.data_dir, options.name), REPORT)
    write_json(path, {**report, "overlap": found})


def _own_options(options: argparse.Namespace) -> dict[str, Any]:
    """The given options of this kind; refuse those of others."""
    mine = OWN.get(options.kind, ())
    for names, of in [
        *((names, kind) for kind, names in OWN.items()),
        (FACES, "faces"),
    ]:
        fits = (
            options.kind not in ("gait", "idx") if of == "faces" else of == options.kind
        )
        given = [name for name in names if getattr(options, name) is not None]
        if given and not fits:
            raise ValueError(
                f"--{given[0].replace('_', '-')}: is for {of} only; got kind "
                f"{options.kind}; leave it out"
            )
    return {n: getattr(options, n) for n in mine if getattr(options, n) is not None}


def _write_faces(
    source: Any, options: argparse.Namespace, place: dict[str, str]
) -> dict[str, Any]:
    """Add landmarks, pairs and detected keypoints to a source, and write it."""
    from kprpe_jax.data.importers.dataset import write_dataset
    from kprpe_jax.data.importers.landmarks import read_landmarks
    from kprpe_jax.data.importers.pair_list import read_lfw_pairs, tables
    from kprpe_jax.data.importers.record import file_state
    from kprpe_jax.data.importers.several_faces import with_faces

    landmarks = None
    origin = {"kind": options.kind, "source": os.path.abspath(options.source)}
    if options.landmarks is not None:
        landmarks = read_landmarks(
            options.landmarks,
            units=options.landmark_units,
            array=options.landmark_array,
        )
        if landmarks.holds_faces:
            source = with_faces(source, landmarks)
        origin |= {
            "landmarks": os.path.abspath(options.landmarks),
            "landmark_state": file_state(options.landmarks),
            "landmark_units": options.landmark_units,
            "landmark_array": options.landmark_array,
        }
    if options.pairs is not None:
        pairs = tables(read_lfw_pairs(options.pairs))
        source = dataclasses.replace(source, tables={**source.tables, **pairs})
        origin |= {
            "pairs": os.path.abspath(options.pairs),
            "pairs_state": file_state(options.pairs),
        }
    if options.detector is not None:
        source, about = _with_detector(source, landmarks, options)
        origin |= about
    return write_dataset(
        source,
        **place,
        origin=origin,
        split=options.split or "train",
        landmarks=landmarks,
        on_error=options.on_error,
        num_workers=options.num_workers,
        shard_rows=_DETECTED_SHARD_ROWS if options.detector else _SHARD_ROWS,
    )


def _with_detector(
    source: Any, landmarks: Any, options: argparse.Namespace
) -> tuple[Any, dict[str, Any]]:
    """Fill a source's keypoints by a detector; what distinguishes this detection."""
    landmarks = landmarks or source.landmarks
    if options.detect == "all" and landmarks is not None:
        raise ValueError(
            "--detect all: the detector must be alone; got a landmark table, too; "
            "leave it out or pass --detect missing"
        )
    if options.faces == "all":
        raise ValueError(
            "--faces all: an imported image has one face; choose center or largest"
        )
    from kprpe_jax.data.importers.detect import with_detected
    from kprpe_jax.recognizers import load_detector

    detector = load_detector(
        options.detector, min_score=options.min_score, max_side=options.max_side
    )

    def wanted(record: Any) -> bool:
        in_table = landmarks is not None and landmarks.knows(record.key)
        known = in_table or record.keypoints is not None
        return options.detect == "all" or not known

    about = {
        "detector": options.detector,
        "detector_fingerprint": detector.fingerprint,
        "detect": options.detect,
        "faces": options.faces,
    }
    faces = options.faces
    return with_detected(source, detector, wanted=wanted, faces=faces), about
