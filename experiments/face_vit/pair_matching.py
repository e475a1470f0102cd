"""One- and two-image networks on unseen people: Face-ViT's Tables 5.10 to 5.12.

    python -m experiments pair_matching --networks h1,h2,h2l,v --seeds 0,1,2 \
        --config configs/pair_matching.py --archive lfw.tar.gz --points points.npz \
        --model mobilefacenet:mobilefacenet.npz --output reports/pair_matching

or, in place of LFW's archive, an imported data set (--dataset synthetic_faces). One
half of the people trains, the other is verified and searched: C by the CNN's cosine, D
by the earth mover's distance, and networks over its patches. Features, runs and scores
stay in OUTPUT: a study that was stopped goes on there.
"""

import argparse
import io
import json
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from experiments.command import run
from experiments.deepface_emd.reranking_features import (
    Network,
    claim_cache,
    embed_photos,
    load_network,
)
from experiments.deepface_emd.reranking_photos import Photos, read_dataset, read_lfw
from experiments.deepface_emd.reranking_trial import Trial
from experiments.face_vit.pair_networks import (
    Images,
    Scorer,
    cnn_scorer,
    earth_movers_scorer,
    network_config,
    train_network,
)
from experiments.whole_run import check_different, whole_numbers
from kprpe_jax.commands.options import add_model
from kprpe_jax.core.features import Features
from kprpe_jax.data.importers.decode import decode_rgb
from kprpe_jax.evaluation.altered import ALTERATIONS
from kprpe_jax.evaluation.pairs import Pairs, sample_pairs
from kprpe_jax.evaluation.retrieval import count_relevant
from kprpe_jax.matching.candidates import score_candidates
from kprpe_jax.matching.nearest import Ranking
from kprpe_jax.matching.two_stage import first_stage
from kprpe_jax.report import pair_matching as report
from kprpe_jax.tasks.pair_matching import verification
from kprpe_jax.training.config import check_workdir, load_config

ALPHAS = (0.3, 0.7, 1.0)
KINDS = ("plain", "mask", "sunglasses", "crop")


class Test(NamedTuple):
    """What unseen people are asked.

    Attributes:
      gallery: all their photos.
      pairs: rows of the gallery; the first photo of each is altered.
      queries: rows of the gallery that are altered and searched for.
      firsts, asked: kind -> the photos of `pairs.first`, and of `queries`, altered.
      ranked: kind -> the first stage of `queries`, by C.
    """

    gallery: Images
    pairs: Pairs
    queries: np.ndarray
    firsts: dict[str, Images]
    asked: dict[str, Images]
    ranked: dict[str, Ranking]


def alter(photos: Photos, kind: str) -> Photos:
    """Photos as they should not be, as files; what is done depends on their numbers."""
    if kind == "plain":
        return photos

    @jax.jit
    def change(image, points, number):
        key = jax.random.fold_in(jax.random.key(0), number)
        changed, _ = ALTERATIONS[kind](key, image[None] / 127.5 - 1, points[None])
        return jnp.clip(jnp.round((changed[0] + 1) * 127.5), 0, 255).astype(jnp.uint8)

    encoded = []
    for file, points, number in zip(*photos[:2], photos.numbers, strict=True):
        pixels = change(decode_rgb(file).astype(np.float32), points, number)
        written = io.BytesIO()
        Image.fromarray(np.asarray(pixels)).save(written, "png", compress_level=1)
        encoded.append(written.getvalue())
    return photos._replace(encoded=encoded)


def see(photos: Photos, network: Network, folder: pathlib.Path) -> Images:
    """Photos with the CNN's features, from `folder` where they are there."""
    faces = embed_photos(photos, network, folder).faces
    pixels = np.stack([decode_rgb(file) for file in photos.encoded])
    embeddings, patches = (np.array(x) for x in (faces.embeddings, faces.patches))
    return Images(pixels, photos.keypoints, photos.labels, embeddings, patches)


def prepare(
    photos: Photos,
    network: Network,
    cache: pathlib.Path,
    *,
    kinds: Sequence[str],
    num_pairs: int,
    num_queries: int,
) -> tuple[Images, Test]:
    """Split the people in two, alter the photos of the second half and rank them by C.

    Args:
      photos: labels are 0 .. people - 1.
      network: the frozen CNN.
      cache: folder of features.
      kinds: of KINDS.
      num_pairs, num_queries: drawn with seed 0.
    Returns: who trains, and what the others are asked.
    Raises: ValueError: an unknown kind; too few people (`sample_pairs`).
    """
    unknown = sorted(set(kinds) - set(KINDS))
    if unknown:
        raise ValueError(
            f"pair_matching: unknown queries {unknown[0]!r}; use some of {KINDS}."
        )
    everybody = see(photos, network, cache / "features_plain")
    half = (int(photos.labels.max()) + 1) // 2
    rows = np.flatnonzero(photos.labels >= half)
    tested, gallery = photos.select(rows), everybody.select(rows)
    gallery = gallery._replace(labels=gallery.labels - half)
    pairs = sample_pairs(gallery.labels, count=num_pairs, seed=0)
    queries = np.random.default_rng(0).permutation(len(rows))[:num_queries]

    def altered(which: np.ndarray, kind: str, name: str) -> Images:
        if kind == "plain":
            return gallery.select(which)
        folder = cache / f"features_{name}_{len(which)}_{kind}"
        images = see(alter(tested.select(which), kind), network, folder)
        return images._replace(labels=gallery.labels[which])

    firsts = {kind: altered(pairs.first, kind, "pairs") for kind in kinds}
    asked = {kind: altered(queries, kind, "queries") for kind in kinds}
    ranks = int(np.bincount(gallery.labels).max()) + 101
    ranked = {
        kind: first_stage(
            Features(images.embeddings, None),
            Features(gallery.embeddings, None),
            ranks=min(ranks, len(rows)),
        )
        for kind, images in asked.items()
    }
    train = everybody.select(np.flatnonzero(photos.labels < half))
    return train, Test(gallery, pairs, queries, firsts, asked, ranked)


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
    network: Network,
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
      network: the frozen CNN.
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
    claim_cache(cache, network, photos)
    options = dict(kinds=kinds, num_pairs=num_pairs, num_queries=num_queries)
    train, test = prepare(photos, network, cache, **options)
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


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], allow_abbrev=False
    )
    add = parser.add_argument
    add("--archive", help="LFW's aligned photos, .tar.gz")
    add("--points", help="their landmarks, .npz")
    add("--dataset", help="an imported data set in place of LFW")
    add("--data_dir", default="data", help="folder of all data sets")
    add("--split", default="train", help="of the data set")
    add("--people", type=int, default=0, help="of the data set, the first; 0 = all")
    add_model(parser)
    add("--config", default="configs/pair_matching.py", help="of the networks")
    add("--networks", default="h1,h2,h2l", help="that the config knows")
    add("--seeds", default="0", help="of each network")
    add("--queries", type=int, default=100, help="of each kind")
    add("--pairs", type=int, default=600, help="of each kind")
    add("--k", type=int, default=50, help="candidates of the second stage")
    add("--output", default="reports/pair_matching", help="folder of the report")
    run(parser, _main, arguments)


def _main(options: argparse.Namespace) -> None:
    if (options.dataset is None) == (options.archive is None or options.points is None):
        raise ValueError(
            "pair_matching: give --archive and --points, or --dataset; got both or "
            "neither"
        )
    if options.dataset is None:
        photos = read_lfw(options.archive, options.points)
    else:
        photos = read_dataset(
            options.data_dir,
            options.dataset,
            options.split,
            identities=(0, options.people) if options.people else None,
        )
    output = pathlib.Path(options.output)
    results = run_study(
        photos,
        load_network(options.model),
        output,
        config=options.config,
        overrides=options.overrides,
        networks=options.networks.split(","),
        seeds=whole_numbers("pair_matching", "seeds", options.seeds.split(",")),
        num_pairs=options.pairs,
        num_queries=options.queries,
        k=options.k,
    )
    sys.stdout.write(report.write(results, output))


def start() -> None:
    """Run from the command line."""
    main()
