"""How many strangers and how many enrolled people a gallery names at `--far`.

    python -m benchmarks strangers --model mobilefacenet:mobilefacenet.npz \
        --archive lfw_df_aligned112.tar.gz

Galleries of one photo a person are sampled from an archive of aligned photos. Second
photos of the people in it, and photos of people who are not, are searched. One table:
the share that is named, at the threshold that `gallery.calibration.calibrate` finds.
"""

import argparse
import pathlib
import posixpath
import sys

import numpy as np

from kprpe_jax.alignment.photos import AlignedFace
from kprpe_jax.commands.options import add_model
from kprpe_jax.core.features import Features
from kprpe_jax.core.input_spec import to_unit_range
from kprpe_jax.data.importers.decode import decode_rgb
from kprpe_jax.data.importers.tar_images import open_tar_images, read_images
from kprpe_jax.gallery.calibration import FAR, calibrate
from kprpe_jax.gallery.header import GalleryContents
from kprpe_jax.gallery.photos import embed_faces
from kprpe_jax.geometry.template import face_template
from kprpe_jax.recognizers import load_recognizer

_STRANGERS = 2000


def embed_archive(model: str, archive: str) -> tuple[np.ndarray, np.ndarray]:
    """Names [N] and unit embeddings float32 [N, D] of an archive's aligned photos."""
    recognizer = load_recognizer(model)
    names = sorted(record.key for record in open_tar_images(archive).records())
    keypoints = face_template((112, 112)) / np.float32(112)
    parts = []
    for start in range(0, len(names), 1024):
        encoded = read_images(archive, names[start : start + 1024])
        faces = [AlignedFace(to_unit_range(decode_rgb(x)), keypoints) for x in encoded]
        parts.append(embed_faces(recognizer, faces).embeddings)
    return np.array(names), np.concatenate(parts)


def measure(
    names: np.ndarray, embeddings: np.ndarray, people: int, far: float, galleries: int
) -> dict[str, float]:
    """Means over sampled galleries, and the 90th percentile of the strangers named.

    Args:
      names: of the photos, in a folder per person.
      embeddings: float32 [N, D].
      people: of a gallery.
      far: of `calibrate`.
      galleries: how many are sampled.
    """
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    _, label = np.unique([posixpath.dirname(x) for x in names], return_inverse=True)
    order = np.argsort(label, kind="stable")
    first = order[np.unique(label[order], return_index=True)[1]]
    photos = np.bincount(label)
    rng, strangers, enrolled = np.random.default_rng(0), [], []
    thresholds = []
    for _ in range(galleries):
        chosen = rng.permutation(len(first))
        rows = first[chosen[:people]]
        named = [str(person) for person in chosen[:people]]
        contents = GalleryContents(
            named, named, np.ones(people, int), Features(embeddings[rows]), {}
        )
        threshold = calibrate(contents, far).threshold
        if threshold is None:
            continue
        thresholds.append(threshold)
        others = unit[first[chosen[people:][:_STRANGERS]]]
        strangers.append(((others @ unit[rows].T).max(1) >= threshold).mean())
        several = chosen[:people][photos[chosen[:people]] > 1]
        if len(several):
            # Stored beside the first, as photos of a person are sorted together.
            after = order[np.searchsorted(label[order], several) + 1]
            scores = unit[after] @ unit[rows].T
            right = np.searchsorted(chosen[:people], several, sorter=np.argsort(
                chosen[:people]))  # fmt: skip
            right = np.argsort(chosen[:people])[right]
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
    add("--cache", metavar="FILE.npz", help="keeps the embeddings for another run")
    add("--far", type=float, default=FAR, help=f"share of strangers named ({FAR})")
    add("--galleries", type=int, default=40, help="sampled galleries of each size (40)")


def run(options: argparse.Namespace) -> None:
    """Measure and print a table."""
    cache = pathlib.Path(options.cache) if options.cache else None
    if cache is not None and cache.exists():
        with np.load(cache, allow_pickle=False) as stored:
            names, embeddings = stored["names"], stored["embeddings"]
    else:
        names, embeddings = embed_archive(options.model, options.archive)
        if cache is not None:
            np.savez(cache, names=names, embeddings=embeddings)
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
