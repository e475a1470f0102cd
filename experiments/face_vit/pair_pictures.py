"""Pictures of why two synthetic faces match, by the runs of `pair_matching`.

    python -m experiments pair_pictures --identities 0:200 \
        --model mobilefacenet:mobilefacenet.npz \
        --output reports/pair_matching_synthetic --figures docs/figures

OUTPUT is that of `pair_matching --dataset synthetic_faces` with the same people. Draws
heat maps of pairs (Face-ViT, Fig. 5.7), queries with their first five before and after
the second stage (DeepFace-EMD, Fig. 5.2), and writes OUTPUT/user_study.html, the sheets
of Face-ViT's Sec. 5.3.3.
"""

import argparse
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from experiments import options as shared
from experiments.deepface_emd.reranking_features import load_photo_recognizer
from experiments.deepface_emd.reranking_photos import read_dataset
from experiments.face_vit.pair_data import KINDS, Test, prepare
from experiments.face_vit.pair_networks import (
    Images,
    Scorer,
    Trained,
    read_network,
)
from kprpe_jax.commands.options import (
    add_data_dir,
    add_model,
    identity_range,
    words,
)
from kprpe_jax.core.features import Features
from kprpe_jax.matching.candidates import score_candidates
from kprpe_jax.matching.earth_movers import match_faces
from kprpe_jax.matching.explanations import (
    cross_correlation,
    pair_tokens,
    rollout_heat,
)
from kprpe_jax.matching.flow import correspondence, flow_picture
from kprpe_jax.matching.nearest import Ranking
from kprpe_jax.matching.sinkhorn import FAST
from kprpe_jax.matching.two_stage import rank_again
from kprpe_jax.report.contact_sheet import plot_contact_sheet
from kprpe_jax.report.heat_maps import framed, heat_map
from kprpe_jax.report.user_study import StudyPair, write_study_page

GRID, MIDDLE = (7, 6), slice(8, 104)  # MobileFaceNet's patches and columns
RIGHT, WRONG, ASKED = (40, 160, 60), (200, 50, 40), (70, 70, 70)
SHOWN = 5  # ranks


def heat_of(trained: Trained, first: Images, second: Images) -> dict[str, list]:
    """Heat maps of a network: cross-correlation and rollout, of B pairs.

    Returns: name -> [first [B, N], second [B, N]].
    """
    sides = (jnp.asarray(trained.inputs(images)) for images in (first, second))
    tokens = pair_tokens(trained.model, trained.variables, *sides)
    patches = [part for one in tokens for part in one.patches]
    return {
        "correlation": list(cross_correlation(*patches)),
        "rollout": [part for one in tokens for part in rollout_heat(one)],
    }


def draw_heat(
    first: Images,
    second: Images,
    maps: Mapping[str, Sequence[Array]],
    path: pathlib.Path,
    row_titles: Sequence[str],
    *,
    flow: bool,
) -> None:
    """One row per pair: both photos, both under each method's heat map.

    Args:
      first, second: B photos.
      maps: title -> heat of the first and of the second photos, [B, N] each; 49 patches
        are of the whole photo, 42 of its middle columns.
      path: of the PNG.
      row_titles: B.
      flow: in addition the first photos put together from patches of the second ones.
    """
    sides = [images.pixels[:, :, MIDDLE] for images in (first, second)]
    columns = [*sides]
    for heats in maps.values():
        columns += [
            np.stack([_under(x, h) for x, h in zip(images.pixels, heat, strict=True)])
            for images, heat in zip((first, second), np.asarray(heats), strict=True)
        ]
    titles = [f"{name} {side}" for name in ("photo", *maps) for side in ("1", "2")]
    if flow:
        columns.append(_flows(first, second))
        titles.append("D: flow")
    plot_contact_sheet(
        np.stack(columns, 1), path, row_titles=row_titles, column_titles=titles
    )


def _under(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    if len(heat) == GRID[0] * GRID[1]:
        return heat_map(image[:, MIDDLE], heat, GRID)
    side = int(np.sqrt(len(heat)))
    return heat_map(image, heat, (side, side))[:, MIDDLE]


def _flows(first: Images, second: Images) -> np.ndarray:
    """The first photos put together from patches of the second ones (Eq. 3.9)."""
    sides = [Features(jnp.asarray(x.embeddings), jnp.asarray(x.patches))
             for x in (first, second)]  # fmt: skip
    flow = match_faces(*sides, weighting="uniform", solver=FAST).flow
    shown = correspondence(flow)
    pictures = []
    for row, image in enumerate(second.pixels[:, :, MIDDLE] / 255):
        one = type(shown)(*(x[row] for x in shown))
        pictures.append(flow_picture(jnp.asarray(image), one, grid=GRID, source=GRID))
    return np.rint(255 * np.stack(pictures)).astype(np.uint8)


def study_sheets(
    first: Images,
    second: Images,
    same: np.ndarray,
    heats: Mapping[str, Sequence[Array]],
) -> list[StudyPair]:
    """Pairs for `write_study_page`, in turn without explanation, by heat, by flow.

    Args:
      first, second: B photos.
      same: bool [B].
      heats: method -> heat of the first and of the second photos, [B, N] each.
    """
    flows = _flows(first, second)
    methods, pairs = ("none", *heats, "D"), []
    for row, truth in enumerate(same):
        method = methods[row % len(methods)]
        explanation = flows[row] if method == "D" else None
        if method in heats:
            sides = zip((first, second), np.asarray(heats[method]), strict=True)
            maps = [_under(images.pixels[row], heat[row]) for images, heat in sides]
            explanation = np.concatenate(maps, 1)
        photos = (images.pixels[row][:, MIDDLE] for images in (first, second))
        pairs.append(StudyPair(method, *photos, explanation, bool(truth)))
    return pairs


def draw_rankings(
    test: Test,
    scorers: Mapping[str, Scorer],
    path: pathlib.Path,
    *,
    kind: str,
    k: int,
    queries: int,
    alpha: float = 0.7,
) -> None:
    """Fig. 5.2: queries that the second stage changes, before and after.

    Args:
      test: from `prepare`.
      scorers: name -> what ranks again.
      path: of the PNG.
      kind: of the queries.
      k: candidates.
      queries: how many, the first whose best answer changes with the first scorer.
      alpha: share of the second stage.
    """
    labels, asked = test.gallery.labels, test.asked[kind]
    first = _others(test.ranked[kind], test.queries, k)
    rankings = {"C": first}
    for name, scorer in scorers.items():
        sides = scorer.represent(asked), scorer.represent(test.gallery)
        scores = score_candidates(scorer.score, *sides, first.rows, chunk=1)
        rankings[name] = rank_again(first, scores, alpha)
    best = list(rankings.values())
    changed = best[0].rows[:, 0] != best[1].rows[:, 0]
    chosen = np.flatnonzero(changed)[:queries]
    sheet, titles = [], []
    for query in chosen:
        for name, ranking in rankings.items():
            row = [framed(asked.pixels[query], ASKED, 4)]
            for place in ranking.rows[query, :SHOWN]:
                right = labels[place] == labels[test.queries[query]]
                color = RIGHT if right else WRONG
                row.append(framed(test.gallery.pixels[place], color, 4))
            sheet.append(row)
            titles.append(name)
    plot_contact_sheet(
        np.array(sheet), path,
        row_titles=titles, column_titles=["query", *map(str, range(1, SHOWN + 1))],
    )  # fmt: skip


def _others(ranking: Ranking, own: np.ndarray, k: int) -> Ranking:
    """The first k without the query's own photo."""
    order = np.argsort(ranking.rows == own[:, None], axis=1, kind="stable")[:, :k]
    return jax.tree.map(lambda x: np.take_along_axis(x, order, 1), ranking)


def draw(options: argparse.Namespace) -> dict[str, Any]:
    """Read the networks and draw all figures; see the module."""
    photos = read_dataset(
        options.data_dir, "synthetic_faces", "train", identities=options.identities
    )
    output, figures = options.output, pathlib.Path(options.figures)
    recognizer = load_photo_recognizer(options.model)
    _, test = prepare(
        photos, recognizer, output / "cache", kinds=KINDS,
        num_pairs=options.pairs, num_queries=options.queries,
    )  # fmt: skip
    networks = {
        name.upper(): read_network(output / "runs" / f"{name}_0")
        for name in options.networks
    }
    rows = [4, 0, 2, 1]  # the odd one shows two people
    kinds = ("plain", "mask", "sunglasses", "plain")
    parts = [
        test.firsts[k].select(np.array([r])) for k, r in zip(kinds, rows, strict=True)
    ]
    first = Images(*(np.concatenate(x) for x in zip(*parts, strict=True)))
    second = test.gallery.select(test.pairs.second[rows])
    correlations = cross_correlation(first.patches, second.patches)
    maps, rolled = {"C": correlations}, {}
    for name, trained in networks.items():
        heat = heat_of(trained, first, second)
        maps[name], rolled[name] = heat["correlation"], heat["rollout"]
    titles = ["same", "same, mask", "same, glasses", "different"]
    draw_heat(first, second, maps, figures / "pair_heat_maps.png", titles, flow=True)
    draw_heat(first, second, rolled, figures / "pair_rollout.png", titles, flow=False)
    _write_sheets(test, networks, output / "user_study.html")
    scorers = {name: t.scorer for name, t in networks.items() if name == "H2L"}
    draw_rankings(
        test, scorers, figures / "pair_rankings.png", kind="sunglasses", k=50, queries=4
    )
    return {"networks": list(networks), "figures": figures}


def _write_sheets(
    test: Test, networks: Mapping[str, Trained], path: pathlib.Path
) -> None:
    """Five examples and 15 pairs of each method; the first photos wear sunglasses."""
    some = np.random.default_rng(1).permutation(len(test.pairs.same))
    some = some[: 5 + 15 * (2 + 1 + ("H2L" in networks))]
    first = test.firsts["sunglasses"].select(some)
    second = test.gallery.select(test.pairs.second[some])
    heats = {"C": cross_correlation(first.patches, second.patches)}
    if "H2L" in networks:
        heats["H2L"] = heat_of(networks["H2L"], first, second)["correlation"]
    pairs = study_sheets(first, second, test.pairs.same[some], heats)
    write_study_page(pairs[:5], pairs[5:], path, study="pair matching")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_data_dir(parser)
    add_model(parser)
    add = parser.add_argument
    add(
        "--identities",
        type=identity_range,
        default=(0, 200),
        metavar="FIRST:END",
        help="of synthetic_faces (0:200)",
    )
    add(
        "--networks",
        type=words,
        default=["v", "h1", "h2l"],
        metavar="NAME,NAME",
        help="runs of pair_matching with seed 0 (v,h1,h2l)",
    )
    add("--queries", type=int, default=100, help="as in pair_matching (100)")
    add("--pairs", type=int, default=600, help="as in pair_matching (600)")
    shared.add_report(parser, "reports/pair_matching_synthetic")
    add("--figures", default="docs/figures", help="folder of the figures")


def run(options: argparse.Namespace) -> None:
    """Draw all figures."""
    sys.stdout.write(f"{draw(options)}\n")
