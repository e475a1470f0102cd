"""Whole photos to names: rank 1, a threshold and photos a second.

    python -m benchmarks real_faces --frames lfw_df_fullframe250_sample.tar \
        --model dlib_resnet_v1 --detector blazeface_short

Of each person of the archive, Name/Name_0001.jpg and so on, the first photo is enrolled
and all others are asked. The threshold is that which one pair in a thousand of two
different people reaches; with LFW's sample these are 19,800 pairs, and 100 of one
person. The time is of a second pass, without compiling.
"""

import argparse
import io
import sys
import time

import numpy as np
from PIL import Image

from kprpe_jax.alignment.photos import AlignedFace
from kprpe_jax.commands.options import add_align, add_detector, add_model
from kprpe_jax.core.unit import unit
from kprpe_jax.data.importers.record import Record
from kprpe_jax.data.importers.tar_images import open_tar_images
from kprpe_jax.detection.photo_faces import read_faces
from kprpe_jax.gallery.photos import embed_faces
from kprpe_jax.gallery.thresholds import MeasuredThreshold
from kprpe_jax.recognizers import load_detector, load_recognizer

FAR = 1e-3


def measure_threshold(
    embeddings: np.ndarray, people: np.ndarray, data: str, fingerprint: str
) -> MeasuredThreshold:
    """The threshold of all pairs of embeddings [N, D] of named people [N]."""
    units = np.asarray(unit(embeddings), np.float64)
    first, second = np.triu_indices(len(units), 1)
    scores = (units @ units.T)[first, second]
    same = people[first] == people[second]
    wrong = np.sort(scores[~same])[::-1]
    threshold = float(np.ceil(1e4 * wrong[int(FAR * len(wrong))]) / 1e4)
    return MeasuredThreshold(
        threshold,
        round(float((wrong >= threshold).mean()), 6),
        round(float((scores[same] >= threshold).mean()), 4),
        f"{(~same).sum():,} pairs of two people and {same.sum():,} of one in {data}",
        fingerprint,
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_model(parser)
    add_detector(parser, required=True)
    add_align(parser)
    parser.add_argument("--frames", required=True, help=".tar of photos by person")
    parser.add_argument("--data", default="LFW", help="name of the photos (LFW)")


def run(options: argparse.Namespace) -> None:
    """Measure and print."""
    recognizer = load_recognizer(options.model).with_framing(options.align)
    detector = load_detector(options.detector)
    photos = [
        (x.key, np.asarray(Image.open(io.BytesIO(x.image)).convert("RGB")))
        for x in open_tar_images(options.frames).read(0)
        if isinstance(x, Record)
    ]
    for _ in range(2):
        start, busy = time.perf_counter(), time.process_time()
        names: list[str] = []
        faces: list[AlignedFace] = []
        for found in read_faces(photos, recognizer.input_spec, detector):
            names += [found.name] * bool(found.faces)
            faces += found.faces[:1]
        detected = time.perf_counter()
        embeddings = embed_faces(recognizer, faces).embeddings
        seconds = time.perf_counter() - start
        busy = time.process_time() - busy
    people = np.array([name.split("/")[-2] for name in names])
    first = np.array([name.split(".")[0].endswith("_0001") for name in names])
    units = np.asarray(unit(embeddings))
    nearest = (units[~first] @ units[first].T).argmax(1)
    right = (people[first][nearest] == people[~first]).sum()
    threshold = measure_threshold(
        embeddings, people, options.data, recognizer.fingerprint
    )
    sys.stdout.write(
        f"{len(photos)} photos, {len(faces)} with a face; {first.sum()} enrolled, rank "
        f"1 {right} of {(~first).sum()}\n{len(photos) / seconds:.1f} photos a second, "
        f"{len(photos) / busy:.1f} a second of one core, "
        f"{(detected - start) / seconds:.0%} of the time to detect and align\n"
        f"{threshold}\n"
    )
