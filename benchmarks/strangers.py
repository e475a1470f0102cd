"""How many strangers and how many enrolled people a gallery names at `--far`.

    python -m benchmarks strangers --model mobilefacenet:mobilefacenet.npz \
        --archive lfw_df_aligned112.tar.gz

Galleries of one photo a person are sampled from an archive of aligned photos. Second
photos of the people in it, and photos of people who are not, are searched. One table:
the share that is named, at the threshold that `gallery.calibration.calibrate` finds.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence

import numpy as np

from benchmarks.thresholds import embed_aligned
from kprpe_jax.commands.options import add_model
from kprpe_jax.core.features import Features
from kprpe_jax.data.importers.record import RejectedRecord
from kprpe_jax.data.importers.tar_images import open_tar_images
from kprpe_jax.gallery.calibration import FAR, calibrate
from kprpe_jax.gallery.header import GalleryContents
from kprpe_jax.recognizers import load_recognizer

_STRANGERS = 2000


def embed_archive(model: str, archive: str) -> tuple[list[str], np.ndarray]:
    """People, a name a photo, and embeddings float32 [N, D] of an archive."""
    people: list[str] = []

    def images() -> Iterator[bytes]:
        for record in open_tar_images(archive).read(0):
            if isinstance(record, RejectedRecord):
                raise ValueError(f"{archive}: {record.key}: {record.reason}")
            people.append(record.identity)
            yield record.image

    return people, embed_aligned(load_recognizer(model), images())


def measure(
    names: Sequence[str],
    embeddings: np.ndarray,
    people: int,
    far: float,
    galleries: int,
) -> dict[str, float]:
    """Means over sampled galleries, and the 90th percentile of the strangers named.

    Args:
      names: of the person, a photo each.
      embeddings: float32 [N, D] of the photos.
      people: of a gallery.
      far: of `calibrate`.
      galleries: how many are sampled.
    """
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    _, label = np.unique(names, return_inverse=True)
    order = np.argsort(label, kind="stable")
    starts = np.unique(label[order], return_index=True)[1]
    photos = np.bincount(label)
    rng, strangers, enrolled = np.random.default_rng(0), [], []
    thresholds = []
    for _ in range(galleries):
        chosen = rng.permutation(len(starts))
        known, others = chosen[:people], chosen[people:][:_STRANGERS]
        rows = order[starts[known]]
        named = [str(person) for person in known]
        contents = GalleryContents(
            named, named, np.ones(people, int), Features(embeddings[rows]), {}
        )
        threshold = calibrate(contents, far).threshold
        if threshold is None:
            continue
        thresholds.append(threshold)
        scores = unit[order[starts[others]]] @ unit[rows].T
        strangers.append((scores.max(1) >= threshold).mean())
        right = np.flatnonzero(photos[known] > 1)  # who have a second photo
        scores = unit[order[starts[known[right]] + 1]] @ unit[rows].T
        enrolled += list((scores.argmax(1) == right) & (scores.max(1) >= threshold))
    return {
        "galleries": len(thresholds),
        "threshold": float(np.mean(thresholds)),
        "strangers": float(np.mean(strangers)),
        "strangers_p90": float(np.quantile(strangers, 0.9)),
        "enrolled": float(np.mean(enrolled)) if enrolled else float("nan"),
    }


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_model(parser)
    add = parser.add_argument
    add("--archive", required=True, help="aligned 112 x 112 photos, a folder a person")
    add("--far", type=float, default=FAR, help=f"share of strangers named ({FAR})")
    add("--galleries", type=int, default=40, help="sampled galleries of each size (40)")


def run(options: argparse.Namespace) -> None:
    """Measure and print a table."""
    names, embeddings = embed_archive(options.model, options.archive)
    sys.stdout.write(
        "| people | threshold | strangers named | 90 % of galleries below | enrolled "
        "named rightly |\n|---|---|---|---|---|\n"
    )
    for people in (5, 10, 20, 50, 100, 200, 500, 1000, 2000):
        found = measure(names, embeddings, people, options.far, options.galleries)
        sys.stdout.write(
            f"| {people} | {found['threshold']:.3f} | {found['strangers']:.2%} | "
            f"{found['strangers_p90']:.2%} | {found['enrolled']:.1%} |\n"
        )
        sys.stdout.flush()
