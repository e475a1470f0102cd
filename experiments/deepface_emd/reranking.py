"""Re-rank photos by patches: the thesis' Tables 5.2 and 5.3 and Fig. 5.1.

Source: DeepFace-EMD, Sec. 5.2.

    python -m experiments reranking --archive lfw.tar.gz --points points.npz \
        --model mobilefacenet:mobilefacenet.npz --output reports/reranking

or, in place of LFW's archive, an imported data set (--dataset). Features and scores
stay in OUTPUT/cache; an experiment that was stopped continues there.
"""

import argparse
import json
import pathlib
import sys

import numpy as np

from experiments import options as shared
from experiments.deepface_emd.reranking_features import (
    PhotoFeatures,
    claim_cache,
    embed_photos,
    load_photo_recognizer,
    select,
)
from experiments.deepface_emd.reranking_photos import Photos, read_photo_set
from experiments.deepface_emd.reranking_scores import candidate_scores
from experiments.deepface_emd.reranking_sweeps import (
    DEPTHS,
    compare_alone,
    compare_packing,
    measure_time,
    sweep_depth,
)
from experiments.deepface_emd.reranking_trial import K, Trial, count_all
from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.commands.options import add_model
from kprpe_jax.evaluation.altered import ALTERATIONS
from kprpe_jax.matching.two_stage import first_stage
from kprpe_jax.report import reranking as report


def run_study(
    photos: Photos,
    recognizer: Recognizer,
    output: pathlib.Path,
    kinds: dict[str, int],
    *,
    swept: int,
    alone: int,
) -> dict:
    """Embed, compare and count.

    Args:
      photos: the gallery; some of them, altered or not, are the queries.
      recognizer: embeds them.
      output: folder; features and scores go to its `cache`.
      kinds: alteration of the queries -> how many are sampled, 0 = all.
      swept: queries of the sweep of k, 0 = no sweep.
      alone: queries that are compared with the whole gallery by patches, 0 = none.
    Returns: what `report.write` reads.
    Raises: ValueError: an unknown kind; a gallery that is too small; a cache of another
      network or other photos.
    """
    unknown = sorted(kinds.keys() - {"plain", *ALTERATIONS})
    if unknown:
        raise ValueError(
            f"reranking: unknown queries {unknown[0]!r}; use plain or one of "
            f"{tuple(ALTERATIONS)}."
        )
    if len(photos.labels) <= K:
        raise ValueError(
            f"reranking: the gallery must have more than {K} photos; got "
            f"{len(photos.labels)}; choose a larger one."
        )
    cache = output / "cache"
    claim_cache(cache, recognizer, photos)
    gallery = embed_photos(photos, recognizer, cache / "features_plain")
    # Candidates are gathered by the thousand: from memory, not from a map.
    gallery = select(gallery, np.arange(len(photos.labels)))
    results: dict[str, dict] = {
        "photos": len(photos.labels),
        "people": int(photos.labels.max()) + 1,
        "queries": {},
        "depth": {},
        "packing": {},
        "alone": {},
    }
    for kind, count in kinds.items():
        # The first queries stay the same ones whatever their number is.
        rows = np.random.default_rng(0).permutation(len(photos.labels))[: count or None]
        name = f"{kind}_{len(rows)}"
        if kind == "plain":
            queries = select(gallery, rows)
        else:
            folder = cache / f"features_{name}"
            changed = photos.select(rows)
            queries = embed_photos(changed, recognizer, folder, ALTERATIONS[kind])
        file = cache / f"scores_{name}.npy"
        trial = _score_kind(rows, queries, gallery, photos.labels, file)
        modes = ("removed", "counted") if kind == "plain" else ("removed", "kept")
        results["queries"][kind] = {
            "count": len(rows),
            **{own: count_all(trial, own=own) for own in modes},
        }
        for part, size, sweep in (
            ("depth", swept, sweep_depth),
            ("packing", swept, compare_packing),
            ("alone", alone, compare_alone),
        ):
            size = min(size, len(rows))
            if size and kind in ("plain", "crop"):
                few = select(queries, np.arange(size))
                file = cache / f"scores_{kind}_{size}_{part}.npy"
                results[part][kind] = sweep(trial.some(size), few, gallery, file)
        (output / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    timing = cache / "milliseconds.json"
    if not timing.exists():
        timing.write_text(json.dumps(measure_time(gallery, gallery)))
    results["milliseconds"] = json.loads(timing.read_text())
    return results


def _score_kind(
    rows: np.ndarray,
    queries: PhotoFeatures,
    gallery: PhotoFeatures,
    labels: np.ndarray,
    file: pathlib.Path,
) -> Trial:
    """Rank one kind of queries and score their candidates.

    Args:
      rows: int [Q], gallery rows that the queries were made from.
      queries: Q of them.
      gallery: G.
      labels: int [G].
      file: of the scores' cache.
    """
    most = max(int(np.bincount(labels).max()), DEPTHS[-1]) + 1
    ranks = min(most, len(labels))
    first = first_stage(queries.faces, gallery.faces, ranks=ranks)
    scores = candidate_scores(queries, gallery, first.rows[:, : K + 1], file)
    return Trial(rows, labels[rows], labels, first, scores)


def _read_kinds(text: str) -> dict[str, int]:
    kinds = {}
    for part in text.split(","):
        kind, _, count = part.partition(":")
        if not count.isdecimal():
            raise ValueError(
                f"--queries must be kind:count,kind:count with 0 for all; got {text!r}"
            )
        kinds[kind] = int(count)
    return kinds


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    shared.add_photo_set(parser)
    add_model(parser)
    shared.add_report(parser, "reports/reranking")
    parser.add_argument(
        "--queries",
        default="plain:2000,crop:1000,mask:500,sunglasses:500",
        metavar="KIND:N,KIND:N",
        help="alterations of the queries, and how many of each; 0 = all",
    )
    parser.add_argument(
        "--swept", type=int, default=300, help="queries of the sweep of k (300)"
    )
    parser.add_argument(
        "--alone", type=int, default=30, help="queries ranked by all patches (30)"
    )


def run(options: argparse.Namespace) -> None:
    """Run the experiment."""
    kinds = _read_kinds(options.queries)
    photos = read_photo_set(options)
    recognizer = load_photo_recognizer(options.model)
    results = run_study(
        photos,
        recognizer,
        options.output,
        kinds,
        swept=options.swept,
        alone=options.alone,
    )
    (options.output / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    sys.stdout.write(report.write(results, options.output))
