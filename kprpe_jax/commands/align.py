"""Detect and align the faces of photos or a video.

    kprpe-jax align --photos FOLDER --output FOLDER \\
        --detector retinaface_mnet025:retinaface_mnet025.npz

Writes into a new folder: aligned/, the faces, that of a.jpg as a.jpg.png;
landmarks.csv, five keypoints of each in fractions of its photo, or with --points
others, and where the detector sees it the head's pose in degrees;
aligned_landmarks.csv, the points in fractions of the aligned face (`import --landmarks`
reads both); left_out.csv, what gave no face, and why; contact sheets. The frames of a
video are photos, VIDEO/000000 and so on.
"""

import argparse
import pathlib
import sys
from collections.abc import Iterator

from kprpe_jax.commands import options as shared
from kprpe_jax.commands.galleries import close_account, count, say_notes


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    files = parser.add_argument_group("input and output")
    shared.add_photos(files)
    shared.add_output(files, "folder to make", required=True)
    shared.add_on_error(files, "skip")
    faces = parser.add_argument_group("faces")
    shared.add_detector(faces, without="blazeface_short (`make models`)")
    shared.add_faces(faces)
    faces.add_argument(
        "--size",
        metavar="HxW",
        type=shared.image_size,
        default=(112, 112),
        help="height and width of the aligned faces (112x112)",
    )
    faces.add_argument(
        "--points",
        metavar="WHICH",
        default="5",
        help="of the tables: 5 keypoints; with BlazeFace also 68 (iBUG's order), mesh "
        "(468), or numbers of the mesh's points, 33,263,1,... (5)",
    )
    shared.add_batch_size(faces, 8)


def run(options: argparse.Namespace) -> None:
    """Run the align command."""
    from tqdm import tqdm

    from kprpe_jax.core.input_spec import InputSpec
    from kprpe_jax.data.read_photos import find_photos, read_photos
    from kprpe_jax.detection.face_mesh import choose_points
    from kprpe_jax.detection.photo_faces import PhotoFaces, read_faces
    from kprpe_jax.recognizers import load_detector
    from kprpe_jax.report.aligned_folder import write_aligned_folder
    from kprpe_jax.weights.installed import DEFAULT_DETECTOR

    points = choose_points(options.points)
    given = find_photos(options.photos)
    detector = load_detector(
        options.detector or DEFAULT_DETECTOR,
        min_score=options.min_score,
        max_side=options.max_side,
        mesh_points=points,
    )
    faces = read_faces(
        read_photos(given),
        InputSpec(options.size),
        detector,
        faces=options.faces,
        batch_size=options.batch_size,
    )

    def told() -> Iterator[PhotoFaces]:
        for photo in faces:
            say_notes({photo.name: "; ".join(photo.notes)} if photo.notes else {})
            yield photo

    bar = tqdm(
        told(), total=given.count, unit=" photos", disable=not sys.stderr.isatty()
    )
    result = write_aligned_folder(
        bar,
        pathlib.Path(options.output),
        number_faces=options.faces == "all",
        on_error=options.on_error,
        num_landmarks=len(points),
    )
    close_account(
        [*result.left_out, *given.passed_over()],
        f"{count(result.faces, 'face')} aligned, in {options.output}",
        output=options.output,
        used=result.photos,
    )
