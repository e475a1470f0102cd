"""One- and two-image networks on held-out identities: Face-ViT's Tables 5.10 to 5.12.

    python -m experiments pair_matching --networks h1,h2,h2l,v --seeds 0,1,2 \
        --config configs/pair_matching.py --archive lfw.tar.gz --points points.npz \
        --model mobilefacenet:mobilefacenet.npz --output reports/pair_matching

or, in place of LFW's archive, an imported data set (--dataset synthetic_faces). One
half of the people trains, the other is verified and searched: C by the CNN's cosine, D
by the earth mover's distance, and networks over its patches. Features, runs and scores
stay in OUTPUT: an experiment that was stopped continues there.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from experiments import options as shared
from experiments.deepface_emd.reranking_features import (
    claim_cache,
    load_photo_recognizer,
)
from experiments.deepface_emd.reranking_photos import Photos, read_photo_set
from experiments.deepface_emd.reranking_trial import Trial
from experiments.face_vit.pair_data import KINDS, Test, prepare
from experiments.face_vit.pair_networks import (
    Scorer,
    cnn_scorer,
    earth_movers_scorer,
    network_config,
    train_network,
)
from experiments.whole_run import check_different
from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.commands.options import add_model, words
from kprpe_jax.evaluation.retrieval import count_relevant
from kprpe_jax.matching.candidates import score_candidates
from kprpe_jax.report import pair_matching as report
from kprpe_jax.tasks.pair_matching import verification
from kprpe_jax.training.config import load_config
from kprpe_jax.training.runs import check_workdir

ALPHAS = (0.3, 0.7, 1.0)


def examine(
    scorer: Callable[[], Scorer], test: Test, file: pathlib.Path, *, k: int
) -> dict[str, Any]:
    """Verify and search with one network.

    Args:
      scorer: makes it; not called where all scores are there.
      test: what is asked.
      file: .npz of the scores, read where it is there.
      k: candidates that are ranked again.
    Returns: kind -> {"accuracy": percent, own: {alpha: P@1, RP, MAP@R in percent}};
      own: `removed` or, of altered queries, also `kept` in the gallery.
    """
    if file.exists():
        with np.load(file) as read:
            scores = dict(read)
    else:
        scores = _score(scorer(), test, k)
        unfinished = file.with_suffix(".unfinished.npz")
        np.savez(unfinished, **scores)
        unfinished.rename(file)
    results = {}
    for kind in test.asked:
        accuracy = verification(scores[f"pairs_{kind}"], test.pairs.same)["accuracy"]
        results[kind] = {"accuracy": 100 * accuracy}
        for own in ("removed",) if kind == "plain" else ("removed", "kept"):
            results[kind][own] = _figures(test, kind, scores[f"queries_{kind}"], own)
    return results


def _score(scorer: Scorer, test: Test, k: int) -> dict[str, np.ndarray]:
    gallery, scores = scorer.represent(test.gallery), {}
    for kind in test.asked:
        first = scorer.represent(test.firsts[kind])
        rows = test.pairs.second[:, None]
        scores[f"pairs_{kind}"] = score_candidates(
            scorer.score, first, gallery, rows, chunk=50
        )[:, 0]
        asked, rows = scorer.represent(test.asked[kind]), test.ranked[kind].rows
        scores[f"queries_{kind}"] = score_candidates(
            scorer.score, asked, gallery, rows[:, : k + 1], chunk=1
        )
    return scores


def _figures(
    test: Test, kind: str, scores: np.ndarray, own: str
) -> dict[str, dict[str, float]]:
    labels = test.gallery.labels
    trial = Trial(
        test.queries,
        labels[test.queries],
        labels,
        test.ranked[kind],
        scores[:, :, None],
    )
    removed = own == "removed"
    relevant = count_relevant(trial.labels, labels, without_own=removed)
    if removed:
        # Who has no other photo left is asked nothing.
        trial = trial.without_own()
    k = scores.shape[1] - 1
    return {
        f"{alpha:g}": trial.figures(trial.scores[:, :k, 0], alpha, relevant)
        for alpha in (0.0, *ALPHAS)
    }


def run_study(
    photos: Photos,
    recognizer: Recognizer,
    output: pathlib.Path,
    *,
    config: str,
    overrides: Sequence[str] = (),
    networks: Sequence[str],
    seeds: Sequence[int],
    kinds: Sequence[str] = KINDS,
    num_pairs: int,
    num_queries: int,
    k: int,
) -> dict[str, Any]:
    """Train, verify and search.

    Args:
      photos: of people with two or more.
      recognizer: the frozen CNN.
      output: folder; results.json and tables.md are written after every network.
      config: file whose get_config takes the name of a network.
      overrides: of the config.
      networks: names that the config knows.
      seeds: of each network.
      kinds, num_pairs, num_queries: of `prepare`.
      k: candidates that are ranked again.
    Returns: what `report.write` reads.
    Raises: ValueError: a network or a seed named twice; a cache of another CNN or other
      photos, a folder of a run with another config; as `prepare` and `loop.train`.
    """
    cache = output / "cache"
    check_different("pair_matching", "networks", networks)
    check_different("pair_matching", "seeds", seeds)
    claim_cache(cache, recognizer, photos)
    options = dict(kinds=kinds, num_pairs=num_pairs, num_queries=num_queries)
    train, test = prepare(photos, recognizer, cache, **options)
    results: dict[str, Any] = {
        "trained": [int(train.labels.max()) + 1, len(train.labels)],
        "tested": [int(test.gallery.labels.max()) + 1, len(test.gallery.labels)],
        **options,
        "k": k,
        "networks": {},
    }
    name = f"scores_{{}}_{num_pairs}_{num_queries}_{k}.npz".format
    plain = {"C": cnn_scorer, "D": earth_movers_scorer}
    todo = [(kind, None) for kind in plain]
    todo += [(kind, seed) for seed in seeds for kind in networks]
    for kind, seed in todo:
        if seed is None:
            make, file = plain[kind], cache / name(kind)
        else:
            one = load_config(f"{config}:{kind}", overrides)
            one = network_config(one, train, seed)
            workdir = output / "runs" / f"{kind}_{seed}"
            check_workdir(one, workdir)  # its scores may be there

            def make(one=one, workdir=workdir):
                return train_network(one, workdir, train, test.gallery).scorer

            file = cache / name(f"{kind}_{seed}")
        found = examine(make, test, file, k=k)
        results["networks"].setdefault(kind.upper(), []).append(found)
        (output / "results.json").write_text(json.dumps(results, indent=1) + "\n")
        report.write(results, output)
    return results


TAKES_CONFIG = True


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    shared.add_photo_set(parser)
    add_model(parser)
    shared.add_config(parser, "configs/pair_matching.py")
    add = parser.add_argument
    add(
        "--networks",
        type=words,
        default=["h1", "h2", "h2l"],
        metavar="NAME,NAME",
        help="of the config (h1,h2,h2l)",
    )
    shared.add_seeds(parser)
    add("--queries", type=int, default=100, help="of each kind (100)")
    add("--pairs", type=int, default=600, help="of each kind (600)")
    add("--k", type=int, default=50, help="candidates of the second stage (50)")
    shared.add_report(parser, "reports/pair_matching")


def run(options: argparse.Namespace) -> None:
    """Run the experiment."""
    photos = read_photo_set(options)
    results = run_study(
        photos,
        load_photo_recognizer(options.model),
        options.output,
        config=options.config,
        overrides=options.overrides,
        networks=options.networks,
        seeds=options.seeds,
        num_pairs=options.pairs,
        num_queries=options.queries,
        k=options.k,
    )
    sys.stdout.write(report.write(results, options.output))
