"""How many strangers and how many enrolled people a gallery names at `--far`.

    python -m benchmarks strangers --model mobilefacenet:mobilefacenet.npz \
        --archive lfw_df_aligned112.tar.gz

Galleries of one photo a person are sampled from an archive of aligned photos. Second
photos of the people in it, and photos of people who are not, are searched. One table:
the share that is named, at the threshold that `gallery.calibration.calibrate` finds.

With `--entries one,two,average,norm` two photos of a person are two entries, or one
fused entry; then all galleries are of people with a third photo, which is asked.
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

ENTRIES = ("one", "two", "average", "norm")
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


def make_entries(photos: np.ndarray, entries: str) -> np.ndarray:
    """Unit rows [P, E, D] of a gallery, E a person, of its photos [P, 2, D]."""
    unit = photos / np.linalg.norm(photos, axis=-1, keepdims=True)
    if entries == "one":
        return unit[:, :1]
    if entries == "two":
        return unit
    mean = (unit if entries == "average" else photos).mean(1, keepdims=True)
    return mean / np.linalg.norm(mean, axis=-1, keepdims=True)


def measure(
    names: Sequence[str],
    embeddings: np.ndarray,
    people: int,
    far: float,
    galleries: int,
    entries: str = "one",
    asked: int = 1,
) -> dict[str, float]:
    """Means over sampled galleries, and the 90th percentile of the strangers named.

    Args:
      names: of the person, a photo each.
      embeddings: float32 [N, D] of the photos.
      people: of a gallery.
      far: of `calibrate`.
      galleries: how many are sampled.
      entries: of ENTRIES.
      asked: photo of the enrolled that is asked, from 0; from 2 on all have it.
    """
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    _, label = np.unique(names, return_inverse=True)
    order = np.argsort(label, kind="stable")
    starts = np.unique(label[order], return_index=True)[1]
    photos = np.bincount(label)
    pool = np.flatnonzero(photos > (asked if asked > 1 else 0))
    rng, strangers, enrolled = np.random.default_rng(0), [], []
    thresholds, first = [], []
    for _ in range(galleries):
        known = rng.permutation(pool)[:people]
        others = rng.permutation(np.setdiff1d(np.arange(len(starts)), known))
        second = np.minimum(1, photos[known] - 1)
        rows = order[np.stack([starts[known], starts[known] + second], 1)]
        gallery = make_entries(embeddings[rows], entries)
        person = np.repeat(np.arange(people), gallery.shape[1])
        named = [str(known[row]) for row in person]
        gallery = gallery.reshape(-1, gallery.shape[-1])
        contents = GalleryContents(
            named,
            [f"{row}" for row in range(len(gallery))],
            np.ones(len(gallery), int),
            Features(gallery),
            {},
        )
        threshold = calibrate(contents, far).threshold
        if threshold is None:
            continue
        thresholds.append(threshold)
        scores = unit[order[starts[others[:_STRANGERS]]]] @ gallery.T
        strangers.append((scores.max(1) >= threshold).mean())
        right = np.flatnonzero(photos[known] > asked)
        scores = unit[order[starts[known[right]] + asked]] @ gallery.T
        best = person[scores.argmax(1)] == right
        first += list(best)
        enrolled += list(best & (scores.max(1) >= threshold))
    return {
        "galleries": len(thresholds),
        "threshold": float(np.mean(thresholds)),
        "strangers": float(np.mean(strangers)),
        "strangers_p90": float(np.quantile(strangers, 0.9)),
        "rank_1": float(np.mean(first)) if first else float("nan"),
        "enrolled": float(np.mean(enrolled)) if enrolled else float("nan"),
    }


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_model(parser)
    add = parser.add_argument
    add("--archive", required=True, help="aligned 112 x 112 photos, a folder a person")
    add("--far", type=float, default=FAR, help=f"share of strangers named ({FAR})")
    add("--galleries", type=int, default=40, help="sampled galleries of each size (40)")
    add(
        "--entries", default="one", help=f"ways to enroll, of {','.join(ENTRIES)} (one)"
    )


def run(options: argparse.Namespace) -> None:
    """Measure and print a table."""
    ways = options.entries.split(",")
    for way in ways:
        if way not in ENTRIES:
            raise ValueError(f"--entries: must be of {ENTRIES}; got {way!r}")
    names, embeddings = embed_archive(options.model, options.archive)
    sys.stdout.write(
        "| entries | people | threshold | strangers named | 90 % of galleries below | "
        "rank 1 | enrolled named rightly |\n|---|---|---|---|---|---|---|\n"
    )
    asked = 1 if ways == ["one"] else 2
    photos = np.unique(names, return_counts=True)[1]
    most = len(photos) if asked == 1 else (photos > asked).sum()
    for way in ways:
        for people in (5, 10, 20, 50, 100, 200, 500, 1000, 2000):
            if people > most:
                break
            found = measure(
                names, embeddings, people, options.far, options.galleries, way, asked
            )
            sys.stdout.write(
                f"| {way} | {people} | {found['threshold']:.3f} | "
                f"{found['strangers']:.2%} | {found['strangers_p90']:.2%} | "
                f"{found['rank_1']:.1%} | {found['enrolled']:.1%} |\n"
            )
            sys.stdout.flush()
