"""Import faces as a TFDS data set.

    python -m kprpe_jax.data.import_faces --kind insightface_rec --source FOLDER \
        --name webface --data_dir data

Keypoints come from a table (--landmarks), from a detector, or both: the detector looks
at the images that the table lacks. Kind `prepared` reads a data set that is there
already, so that its keypoints are filled:

    python -m kprpe_jax.data.import_faces --kind prepared --source data/webface \
        --name webface_points --detector retinaface --detector_weights FILE \
        --on_error skip

A killed import goes on when the same command is run again. What was found, and what was
left out and why, stands in import_report.json in the data set's folder.
"""

import dataclasses
import os
import sys
from collections.abc import Callable

from absl import app, flags, logging

from kprpe_jax.data.importers.arrays import open_arrays
from kprpe_jax.data.importers.dataset import ON_ERROR, write_dataset
from kprpe_jax.data.importers.ijb import open_ijb
from kprpe_jax.data.importers.image_folder import open_image_folder
from kprpe_jax.data.importers.image_list import open_image_list
from kprpe_jax.data.importers.landmarks import UNITS, Landmarks, read_landmarks
from kprpe_jax.data.importers.pair_list import read_lfw_pairs, tables
from kprpe_jax.data.importers.prepared import open_prepared
from kprpe_jax.data.importers.record import Record, RecordSource, file_state
from kprpe_jax.data.importers.record_io import open_record_io
from kprpe_jax.data.importers.tar_images import open_tar_images
from kprpe_jax.data.importers.tinyface import open_tinyface
from kprpe_jax.data.importers.verification_bin import open_verification_bin
from kprpe_jax.data.importers.video_templates import open_video_templates
from kprpe_jax.data.importers.wider_face import open_wider_face

KINDS: dict[str, Callable[..., RecordSource]] = {
    "insightface_rec": open_record_io,
    "insightface_bin": open_verification_bin,
    "folder": open_image_folder,
    "list": open_image_list,
    "tar": open_tar_images,
    "ijb": open_ijb,
    "tinyface": open_tinyface,
    "video": open_video_templates,
    "wider_face": open_wider_face,
    "arrays": open_arrays,
    "prepared": open_prepared,
}
_MAX_FACES = 16  # of a photo, of which the largest counts
# A detector takes long: with it a stopped import repeats less.
_DETECTED_SHARD_ROWS, _SHARD_ROWS = 8192, 65_536

_KIND = flags.DEFINE_enum("kind", None, list(KINDS), "Form of the source.")
_SOURCE = flags.DEFINE_string("source", None, "File or folder to import.")
_NAME = flags.DEFINE_string("name", None, "Name of the data set.")
_DATA_DIR = flags.DEFINE_string("data_dir", "data", "Folder of all data sets.")
_SPLIT = flags.DEFINE_string("split", "train", "Split that the images go to.")
_LANDMARKS = flags.DEFINE_string("landmarks", None, "Table of 5 points: CSV or .npz.")
_UNITS = flags.DEFINE_enum(
    "landmark_units",
    "fraction",
    UNITS,
    "Of the table: fractions of the size or pixels.",
)
_ARRAY = flags.DEFINE_string("landmark_array", "points", "Name in the .npz.")
_PAIRS = flags.DEFINE_string("pairs", None, "List of pairs in the form of LFW's.")
_IMAGE_ARRAY = flags.DEFINE_string("image_array", "images", "arrays: name of images.")
_LABEL_ARRAY = flags.DEFINE_string("label_array", "labels", "arrays: name of labels.")
_DETECTOR = flags.DEFINE_enum(
    "detector",
    None,
    ["retinaface", "aligner"],
    "Network for keypoints: any photos, or one face that fills each.",
)
_DETECTOR_WEIGHTS = flags.DEFINE_string(
    "detector_weights", None, "The detector's official weights."
)
_DETECT = flags.DEFINE_enum(
    "detect", "missing", ["missing", "all"], "Images that the detector looks at."
)
_MIN_SCORE = flags.DEFINE_float("min_score", 0.5, "A face must score more, 0..1.")
_ON_BAD = flags.DEFINE_enum("on_error", "fail", ON_ERROR, "At a bad entry.")
_NUM_WORKERS = flags.DEFINE_integer("num_workers", 1, "Decoding threads.")
flags.mark_flags_as_required(["kind", "source", "name"])


def main(argv: list[str]) -> None:
    """Import what the flags name and say what came of it."""
    logging.set_verbosity(logging.WARNING)
    try:
        if argv[1:]:
            raise ValueError(
                f"import_faces: everything is given by flags; got {argv[1:]}; see "
                "--help"
            )
        report = _import()
    except ValueError as e:
        sys.exit(f"error: {e}")
    bad = ", ".join(f"{kind} {b['count']}" for kind, b in report["bad"].items())
    sys.stdout.write(
        f"{_NAME.value}: {report['rows']} images, {report['identities']} identities; "
        f"bad: {bad or 'none'}; in {os.path.join(_DATA_DIR.value, _NAME.value)}\n"
    )


def _import() -> dict:
    landmarks = None
    origin = {"kind": _KIND.value, "source": os.path.abspath(_SOURCE.value)}
    if _LANDMARKS.value is not None:
        landmarks = read_landmarks(
            _LANDMARKS.value, units=_UNITS.value, array=_ARRAY.value
        )
        origin |= {
            "landmarks": os.path.abspath(_LANDMARKS.value),
            "landmark_state": file_state(_LANDMARKS.value),
            "landmark_units": _UNITS.value,
            "landmark_array": _ARRAY.value,
        }
    options = {}
    if _KIND.value == "arrays":
        options = {"images": _IMAGE_ARRAY.value, "labels": _LABEL_ARRAY.value}
    source = KINDS[_KIND.value](_SOURCE.value, **options)
    if _PAIRS.value is not None:
        pairs = tables(read_lfw_pairs(_PAIRS.value))
        source = dataclasses.replace(source, tables={**source.tables, **pairs})
        origin |= {
            "pairs": os.path.abspath(_PAIRS.value),
            "pairs_state": file_state(_PAIRS.value),
        }
    if _DETECTOR.value is not None:
        source = _detected(source, landmarks)
        origin |= {
            "detector": _DETECTOR.value,
            "detector_weights": os.path.abspath(_DETECTOR_WEIGHTS.value),
            "detector_state": file_state(_DETECTOR_WEIGHTS.value),
            "detect": _DETECT.value,
            "min_score": _MIN_SCORE.value,
        }
    return write_dataset(
        source,
        name=_NAME.value,
        data_dir=_DATA_DIR.value,
        origin=origin,
        split=_SPLIT.value,
        landmarks=landmarks,
        on_error=_ON_BAD.value,
        num_workers=_NUM_WORKERS.value,
        shard_rows=_DETECTED_SHARD_ROWS if _DETECTOR.value else _SHARD_ROWS,
    )


def _detected(source: RecordSource, landmarks: Landmarks | None) -> RecordSource:
    """Let the detector that the flags name find keypoints."""
    if _DETECTOR_WEIGHTS.value is None or not os.path.isfile(_DETECTOR_WEIGHTS.value):
        raise ValueError(
            "import_faces: --detector needs the file of its official weights; got "
            f"{_DETECTOR_WEIGHTS.value}; give --detector_weights"
        )
    landmarks = landmarks or source.landmarks
    if _DETECT.value == "all" and landmarks is not None:
        raise ValueError(
            "import_faces: with --detect all the detector must be alone; got a "
            "landmark table, too; leave it out or pass --detect missing"
        )
    # JAX and the networks, for those who want them.
    from kprpe_jax.core.compile_cache import use_compile_cache
    from kprpe_jax.data.importers.detect import with_detected
    from kprpe_jax.detection import detector as detectors
    from kprpe_jax.weights import retinaface

    use_compile_cache()
    if _DETECTOR.value == "retinaface":
        model = retinaface.official_retinaface()
        variables = retinaface.import_weights(model, _DETECTOR_WEIGHTS.value)
        detector = detectors.retinaface_detector(
            model, variables, max_faces=_MAX_FACES, min_score=_MIN_SCORE.value
        )
    else:
        model = retinaface.official_aligner()
        variables = retinaface.import_weights(model, _DETECTOR_WEIGHTS.value)
        detector = detectors.aligner_detector(
            model, variables, min_score=_MIN_SCORE.value
        )

    def wanted(record: Record) -> bool:
        in_table = landmarks is not None and record.key in landmarks.rows
        known = in_table or record.keypoints is not None
        return _DETECT.value == "all" or not known

    return with_detected(source, detector, wanted=wanted)


if __name__ == "__main__":
    app.run(main)
