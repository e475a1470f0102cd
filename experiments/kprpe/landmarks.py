"""Landmark errors of a detector on photos with labeled points.

Source: KP-RPE, Supp. 3.1 and Fig. 8.

    python -m experiments landmarks --photos lfw150_images.tar \
        --detector retinaface_mnet025:retinaface_mnet025.npz \
        --points lfw150_points.npz --array points150 --output reports/landmarks

The photos are a folder or a tar archive; the points an .npz with `names` and an array
[N, 5, 2] in pixels, or a text table. Photos that lack points, or points that lack their
photo, are counted.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Iterator

import numpy as np

from experiments import options as shared
from kprpe_jax.data.importers.decode import decode_rgb
from kprpe_jax.data.importers.landmarks import Landmarks, read_landmarks
from kprpe_jax.data.importers.record import RejectedRecord
from kprpe_jax.data.importers.tar_images import open_tar_images
from kprpe_jax.detection.detector import Detector
from kprpe_jax.detection.photos import detect_photos
from kprpe_jax.evaluation.landmarks import (
    box_size,
    eye_distance,
    normalized_errors,
    summarize_errors,
)
from kprpe_jax.recognizers import load_detector
from kprpe_jax.report.landmark_errors import plot_cumulative


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


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--detector",
        metavar="SPEC",
        required=True,
        help="NAME:FILE or the folder of a landmark run",
    )
    parser.add_argument(
        "--photos", metavar="PATH", required=True, help="a folder or a tar archive"
    )
    parser.add_argument(
        "--points", metavar="FILE", required=True, help="labeled points"
    )
    parser.add_argument(
        "--array", default="points", help="their name in an .npz (points)"
    )
    parser.add_argument(
        "--side", type=int, default=256, help="longer side of the photos (256)"
    )
    shared.add_report(parser, "reports/landmarks")


def run(options: argparse.Namespace) -> None:
    """Measure, print and write report.json and errors.png."""
    labels = read_landmarks(options.points, units="pixel", array=options.array)
    if labels.is_dense:
        raise ValueError(
            f"--points {options.points}: must hold five points of each photo; got "
            f"{labels.points.shape[1]}; name another array with --array."
        )
    detector = load_detector(options.detector, min_score=0.02, max_faces=8)
    detector = detector._replace(canvases=(options.side,), enlarge=True)
    errors = measure(detector, read_photos(pathlib.Path(options.photos)), labels)
    output = options.output
    output.mkdir(parents=True, exist_ok=True)
    results = {name: summarize_errors(values) for name, values in errors.items()}
    (output / "report.json").write_text(json.dumps(results, indent=2) + "\n")
    plot_cumulative(errors, output / "errors.png")
    for name, result in results.items():
        numbers = "  ".join(f"{key} {value:.4g}" for key, value in result.items())
        sys.stdout.write(f"{name}: {numbers}\n")
