"""Import faces as a TFDS data set.

    python -m kprpe_jax.data.import_faces --kind insightface_rec --source FOLDER \
        --name webface --data_dir data

A killed import goes on when the same command is run again. What was found, and what was
left out and why, stands in import_report.json in the data set's folder.
"""

import os
import sys
from collections.abc import Callable

from absl import app, flags, logging

from kprpe_jax.data.importers.dataset import ON_BAD, write_dataset
from kprpe_jax.data.importers.ijb import open_ijb
from kprpe_jax.data.importers.image_folder import open_image_folder
from kprpe_jax.data.importers.image_list import open_image_list
from kprpe_jax.data.importers.landmarks import UNITS, read_landmarks
from kprpe_jax.data.importers.record import Source, file_state
from kprpe_jax.data.importers.record_io import open_record_io
from kprpe_jax.data.importers.tar_images import open_tar_images
from kprpe_jax.data.importers.tinyface import open_tinyface
from kprpe_jax.data.importers.verification_bin import open_verification_bin
from kprpe_jax.data.importers.video_templates import open_video_templates

KINDS: dict[str, Callable[[str], Source]] = {
    "insightface_rec": open_record_io,
    "insightface_bin": open_verification_bin,
    "folder": open_image_folder,
    "list": open_image_list,
    "tar": open_tar_images,
    "ijb": open_ijb,
    "tinyface": open_tinyface,
    "video": open_video_templates,
}

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
_ON_BAD = flags.DEFINE_enum("on_bad", "fail", ON_BAD, "At a bad entry.")
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
    return write_dataset(
        KINDS[_KIND.value](_SOURCE.value),
        name=_NAME.value,
        data_dir=_DATA_DIR.value,
        origin=origin,
        split=_SPLIT.value,
        landmarks=landmarks,
        on_bad=_ON_BAD.value,
        num_workers=_NUM_WORKERS.value,
    )


if __name__ == "__main__":
    app.run(main)
