"""Photos a second from files to features, end to end and by stage.

    python -m benchmarks photo_path --model mobilefacenet:mobilefacenet.npz \\
        --detector retinaface_mnet025:retinaface_mnet025.npz --photos FOLDER

Each stage alone, in whole batches, and all together as `enroll` runs them. The last
line counts the programs that another run compiles; there should be none.
"""

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from benchmarks.harness import machine
from kprpe_jax.alignment.photos import align_patches, cut_patch
from kprpe_jax.commands.options import add_detector, add_model, add_photos
from kprpe_jax.data.read_photos import read_photos
from kprpe_jax.detection.find_faces import find_faces
from kprpe_jax.detection.photos import detect_photos
from kprpe_jax.gallery.photos import embed_faces, embed_photos, list_photos
from kprpe_jax.recognizers import load_detector, load_recognizer

_BATCH = 8  # photos at once in the detector, as in `embed_photos`


def chunks(rows: Sequence, size: int) -> Iterator[Sequence]:
    """Rows, so many at a time."""
    rows = iter(rows)
    while chunk := list(itertools.islice(rows, size)):
        yield chunk


def seconds(function: Callable[[], Any], repeats: int = 3) -> float:
    """Least time of some runs, after one that compiles."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def measure(path: str, recognizer: Any, detector: Any) -> dict[str, float]:
    """Seconds of each stage alone, and of all together, for all photos of a path."""
    spec = recognizer.input_spec
    photos = [x for x in read_photos(path) if isinstance(x[1], np.ndarray)]
    found = list(find_faces(detector, photos, batch_size=_BATCH))
    found = [x for x in found if len(x.scores)]
    options = dict(batch_size=_BATCH)

    def align() -> list:
        patches = [
            cut_patch(x.photo, x.keypoints[0], spec, box=x.boxes[0]) for x in found
        ]
        return [
            face for part in chunks(patches, 32) for face in align_patches(part, spec)
        ]

    faces = align()
    files = list_photos(path)
    times = {
        "decode": seconds(lambda: list(read_photos(path))),
        "detect": seconds(lambda: list(detect_photos(detector, photos, **options))),
    }
    both = seconds(lambda: list(find_faces(detector, photos, **options)))
    times["second look, turns"] = both - times["detect"]
    times["align"] = seconds(align)
    times["embed"] = seconds(lambda: embed_faces(recognizer, faces))
    times["end to end"] = seconds(
        lambda: list(embed_photos(files, recognizer, detector))
    )
    return {name: value / len(photos) for name, value in times.items()}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_model(parser)
    add_detector(parser, required=True)
    add_photos(parser)


def run(options: argparse.Namespace) -> None:
    """Measure and print a table."""
    recognizer = load_recognizer(options.model)
    detector = load_detector(options.detector)
    times = measure(options.photos, recognizer, detector)
    told = machine()
    sys.stdout.write(
        f"{told['device']}, {told['processor']}, {told['cores']} cores\n\n"
        "| stage | ms a photo | photos a second |\n|---|---|---|\n"
    )
    for name, value in times.items():
        sys.stdout.write(f"| {name} | {1e3 * value:.1f} | {1 / value:.1f} |\n")
    alone = sum(times.values()) - times["end to end"]
    sys.stdout.write(
        f"\nend to end takes {times['end to end'] / alone:.2f} of the stages' sum\n"
    )
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: (
            compiled.append(event) if "backend_compile" in event else None
        )
    )
    list(embed_photos(list_photos(options.photos), recognizer, detector))
    sys.stdout.write(f"{len(compiled)} programs compiled in another run\n")
