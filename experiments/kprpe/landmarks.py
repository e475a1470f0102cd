"""Landmark errors of a detector on photos with labeled points.

Source: KP-RPE, Supp. 3.1 and Fig. 8.

    python -m experiments landmarks --weights retinaface_mnet025.npz \
        --photos lfw150_images.tar --points lfw150_points.npz --array points150 \
        --output reports/landmarks

The photos are a folder or a tar archive; the points an .npz with `names` and an array
[N, 5, 2] in pixels, or a text table. Photos that lack points, or points that lack their
photo, are counted.
"""

import json
import pathlib
import sys
from collections.abc import Iterator

import numpy as np
from absl import app, flags, logging

from kprpe_jax import registry
from kprpe_jax.data.importers.decode import decode_rgb
from kprpe_jax.data.importers.landmarks import Landmarks, read_landmarks
from kprpe_jax.data.importers.record import RejectedRecord
from kprpe_jax.data.importers.tar_images import open_tar_images
from kprpe_jax.detection.detector import Detector, retinaface_detector
from kprpe_jax.detection.photos import detect_photos
from kprpe_jax.evaluation.landmarks import (
    box_size,
    eye_distance,
    normalized_errors,
    summarize_errors,
)
from kprpe_jax.report.landmark_errors import plot_cumulative
from kprpe_jax.weights import import_weights

_WEIGHTS = flags.DEFINE_string("weights", None, "RetinaFace's official weights.")
_PHOTOS = flags.DEFINE_string("photos", None, "Folder or tar archive.")
_POINTS = flags.DEFINE_string("points", None, "Labeled points.")
_ARRAY = flags.DEFINE_string("array", "points", "Their name in an .npz.")
_SIDE = flags.DEFINE_integer("side", 256, "Photos are brought to this longer side.")
_OUTPUT = flags.DEFINE_string("output", "reports/landmarks", "Folder of the report.")
flags.mark_flags_as_required(["weights", "photos", "points"])


def measure(
    detector: Detector,
    photos: Iterator[tuple[str, np.ndarray]],
    labels: Landmarks,
    *,
    batch_size: int = 8,
) -> dict[str, np.ndarray]:
    """Errors of the largest face of each labeled photo.

    Args:
      detector: the network.
      photos: names and uint8 [H, W, 3].
      labels: table of points.
      batch_size: photos at once.
    Returns: `eyes` and `box`: float64 [N], errors over the distance of the eyes and
      over the square root of the area of the labeled points' upright box, infinite
      where no face was found. The paper's box is the face's, which is larger.
    Raises: ValueError: no photo has labeled points: they are of other photos.
    """
    labeled = ((n, p) for n, p in photos if labels.find(n, *p.shape[:2]) is not None)
    rows = []
    for found in detect_photos(
        detector, labeled, batch_size=batch_size, order="largest"
    ):
        size = np.array(found.photo.shape[1::-1])
        want = labels.find(found.name, *found.photo.shape[:2]) * size
        ok = len(found.keypoints) > 0
        got = found.keypoints[0] * size if ok else np.zeros_like(want)
        rows.append((got, want, ok))
    if not rows:
        raise ValueError(
            "landmarks: the points must be of these photos; got none for any of them, "
            f"but for names such as {next(iter(labels.rows))!r}; give their table"
        )
    got, want, ok = map(np.stack, zip(*rows, strict=True))
    boxes = np.concatenate([want.min(1), want.max(1)], axis=-1)
    sizes = {"eyes": eye_distance(want), "box": box_size(boxes)}
    return {
        name: normalized_errors(got, want, size, found=ok)
        for name, size in sizes.items()
    }


def read_photos(path: pathlib.Path) -> Iterator[tuple[str, np.ndarray]]:
    """Photos of a folder or an archive, with their names in it.

    Raises: ValueError: neither; a photo that cannot be read.
    """
    if path.is_dir():
        for file in sorted(path.iterdir()):
            if file.suffix.lower() in (".jpg", ".jpeg", ".png"):
                yield file.name, decode_rgb(file.read_bytes())
        return
    for entry in open_tar_images(path).read(0):
        if isinstance(entry, RejectedRecord):
            raise ValueError(
                f"landmarks: {path} must hold photos only; got {entry.key}: "
                f"{entry.reason}; repair it"
            )
        yield entry.key, decode_rgb(entry.image)


def main(argv: list[str]) -> None:
    """Measure what the flags name, print it and write report.json and errors.png."""
    logging.set_verbosity(logging.WARNING)
    try:
        if argv[1:]:
            raise ValueError(
                f"landmarks: everything is given by flags; got {argv[1:]}; see --help"
            )
        labels = read_landmarks(_POINTS.value, units="pixel", array=_ARRAY.value)
        model = registry.network("retinaface_mnet025").make()
        variables = import_weights(model, _WEIGHTS.value)
        detector = retinaface_detector(model, variables, max_faces=8, min_score=0.02)
        detector = detector._replace(canvases=(_SIDE.value,), enlarge=True)
        errors = measure(detector, read_photos(pathlib.Path(_PHOTOS.value)), labels)
    except ValueError as e:
        sys.exit(f"error: {e}")
    output = pathlib.Path(_OUTPUT.value)
    output.mkdir(parents=True, exist_ok=True)
    results = {name: summarize_errors(values) for name, values in errors.items()}
    (output / "report.json").write_text(json.dumps(results, indent=2) + "\n")
    plot_cumulative(errors, output / "errors.png")
    for name, result in results.items():
        numbers = "  ".join(f"{key} {value:.4g}" for key, value in result.items())
        sys.stdout.write(f"{name}: {numbers}\n")


def start() -> None:
    """Run from the command line."""
    app.run(main)
