"""Search a large gallery: how long it is read, calibrated, placed and searched.

    python -m benchmarks large_gallery --entries 1000000
    XLA_FLAGS=--xla_force_host_platform_device_count=8 \\
        python -m benchmarks large_gallery --entries 1000000 --gallery FILE

The entries are made up: people of one photo each, as far apart as those of a good
network. --gallery keeps the file for another run.
"""

import argparse
import pathlib
import sys
import tempfile
import time

import jax
import numpy as np

from kprpe_jax.core.features import Features
from kprpe_jax.core.input_spec import InputSpec
from kprpe_jax.gallery.calibration import calibrate
from kprpe_jax.gallery.gallery import Gallery
from kprpe_jax.gallery.header import GalleryEntry, GalleryHeader, NetworkSource
from kprpe_jax.gallery.identify import make_ranker, rank_people

_CHUNK = 10_000


def make_gallery(path: pathlib.Path, entries: int, dim: int) -> None:
    """Write a gallery of people who are not there."""
    source = NetworkSource("made up", "0")
    header = GalleryHeader(
        source, "", InputSpec((112, 112)), dim, (1, 1), 1, patches="none"
    )
    rng = np.random.default_rng(0)
    with Gallery(path, create=header) as gallery:
        for start in range(0, entries, _CHUNK):
            rows = rng.normal(size=(min(_CHUNK, entries - start), dim))
            gallery.add(
                [
                    GalleryEntry(f"{i:08}", f"{i:08}/0.jpg", f"{i:064x}", Features(row))
                    for i, row in enumerate(rows.astype(np.float32), start)
                ]
            )


def measure(path: pathlib.Path, questions: int) -> dict[str, float]:
    """Seconds of each step; the questions are entries with noise."""
    times, clock = {}, time.perf_counter

    def step(name: str, start: float) -> float:
        times[name] = clock() - start
        return clock()

    with Gallery(path) as gallery:
        start = clock()
        contents = gallery.read()
        start = step("read", start)
        calibrate(contents)
        start = step("calibrate", start)
        rank = make_ranker(gallery, contents, 0, 0.7, None)
        start = step("place", start)
        rng = np.random.default_rng(1)
        rows = rng.integers(0, len(contents.people), questions)
        embeddings = contents.features.embeddings[rows]
        noisy = embeddings + 0.3 * rng.normal(size=embeddings.shape)
        queries = Features(noisy.astype(np.float32))
        start = clock()
        ranking = rank(queries)
        start = step(f"{questions} questions, compiled now", start)
        ranking = rank(queries)
        step(f"{questions} questions", start)
        best = [rank_people(contents, ranking, i)[0].person for i in range(questions)]
    assert best == [contents.people[row] for row in rows]
    return times


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("--entries", type=int, default=1_000_000, help="of the gallery (1000000)")
    add("--dim", type=int, default=128, help="numbers of an embedding (128)")
    add("--questions", type=int, default=32, help="asked together (32)")
    add("--gallery", metavar="FILE", help="made if it is not there, and kept")


def run(options: argparse.Namespace) -> None:
    """Measure and print a table."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(options.gallery or pathlib.Path(folder) / "made.gallery")
        if not path.exists():
            make_gallery(path, options.entries, options.dim)
        times = measure(path, options.questions)
    sys.stdout.write(
        f"{options.entries:,} entries on {jax.device_count()} devices\n\n"
        "| step | seconds | over reading |\n|---|---|---|\n"
    )
    for name, value in times.items():
        ratio = value / times["read"]
        sys.stdout.write(f"| {name} | {value:.2f} | {ratio:.2f} |\n")
