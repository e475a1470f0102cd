"""Re-rank LFW by patches: the thesis' Tables 5.2 and 5.3 and Fig. 5.1, on real photos.

Source: DeepFace-EMD, Sec. 5.2.

    python -m kprpe_jax.studies.reranking --archive lfw.tar.gz \
        --points points.npz --weights mobilefacenet.npz --output reports/reranking

Features and scores stay in OUTPUT/cache; a study that was stopped goes on there.
"""

import json
import pathlib
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from absl import app, flags, logging

from kprpe_jax.evaluation.altered import ALTERATIONS
from kprpe_jax.evaluation.retrieval import count_relevant, retrieval
from kprpe_jax.identification.packing import pack, unpack
from kprpe_jax.matching.two_stage import (
    Ranking,
    first_stage,
    rank_again,
    rank_by_patches,
    second_stage,
)
from kprpe_jax.report import reranking as report
from kprpe_jax.studies.reranking_scores import (
    WEIGHTINGS,
    Features,
    candidate_scores,
    embed_photos,
    read_lfw,
    select,
    whole_gallery_scores,
)

ALPHAS = (0.0, 0.3, 0.5, 0.7, 1.0)
DEPTHS = (10, 50, 100, 200, 300)
ALONE = ("uniform", "apc", "sc")  # weightings at stage 1
STORED = ("float32", "bfloat16", "int8")
K, ALPHA = 100, 0.7
TIMED = 16  # queries
_ARCHIVE = flags.DEFINE_string("archive", None, "Aligned photos, .tar.gz.")
_POINTS = flags.DEFINE_string("points", None, "Landmarks, .npz.")
_WEIGHTS = flags.DEFINE_string("weights", None, "MobileFaceNet's weights.")
_OUTPUT = flags.DEFINE_string("output", "reports/reranking", "Folder of the report.")
_QUERIES = flags.DEFINE_list(
    "queries", ["plain:2000", "crop:1000", "mask:500", "sunglasses:500"],
    "What is done to the queries, and how many are drawn; 0 = all.",
)  # fmt: skip
_SWEPT = flags.DEFINE_integer("swept", 300, "Queries of the sweep of k.", 0)
_ALONE = flags.DEFINE_integer("alone", 30, "Queries that see all patches.", 0)
flags.mark_flags_as_required(["archive", "points", "weights"])


class Trial(NamedTuple):
    """Queries and what was found for them.

    Attributes:
      rows: int [Q], gallery rows of the photos that the queries were made from.
      labels: int [Q].
      gallery_labels: int [G].
      first: cosine ranking; the own photo is among the rows.
      scores: float32 [Q, k + 1, W], earth mover's similarities of its first ranks.
    """

    rows: np.ndarray
    labels: np.ndarray
    gallery_labels: np.ndarray
    first: Ranking
    scores: np.ndarray

    def without_own(self) -> "Trial":
        """The same, had the own photo not been in the gallery."""
        own = self.first.rows == self.rows[:, None]
        order = np.argsort(own, axis=1, kind="stable")[:, :-1]
        short = np.argsort(own[:, : self.scores.shape[1]], axis=1, kind="stable")
        first = Ranking(*(np.take_along_axis(x, order, 1) for x in self.first))
        scores = np.take_along_axis(self.scores, short[:, :-1, None], 1)
        return self._replace(first=first, scores=scores)

    def some(self, count: int) -> "Trial":
        """The first queries."""
        first = Ranking(*(x[:count] for x in self.first))
        cut = (x[:count] for x in (self.rows, self.labels))
        return Trial(*cut, self.gallery_labels, first, self.scores[:count])

    def figures(
        self, scores: np.ndarray, alpha: float, relevant: np.ndarray
    ) -> dict[str, float]:
        """P@1, R-precision and MAP@R in percent, of scores [Q, k] mixed in."""
        ranking = rank_again(self.first, scores, alpha)
        found = self.gallery_labels[ranking.rows]
        means = (100 * x.mean() for x in retrieval(found, self.labels, relevant))
        return dict(zip(("p_at_1", "rp", "map_at_r"), means, strict=True))


def count_all(trial: Trial, *, own: str) -> dict[str, dict]:
    """Table 5.2 and Fig. 5.1 of one kind of queries.

    Args:
      trial: its scores have K + 1 ranks.
      own: `kept`: the own photo may be found; `removed`: it is not in the gallery;
        `counted`: it is never found, but R counts it, as in the thesis' LFW.
    """
    without = own != "kept"
    relevant = count_relevant(
        trial.labels, trial.gallery_labels, without_own=own == "removed"
    )
    trial = trial.without_own() if without else trial
    scores = trial.scores[:, :K]
    hits = trial.gallery_labels[trial.first.rows[:, :K]] == trial.labels[:, None]
    return {
        "stage1": trial.figures(scores[:, :, 0], 0.0, relevant),
        "perfect": trial.figures(hits.astype(np.float32), 1.0, relevant),
        **{
            name: {
                f"{alpha:g}": trial.figures(scores[:, :, i], alpha, relevant)
                for alpha in ALPHAS
            }
            for i, name in enumerate(WEIGHTINGS)
        },
    }


def sweep_depth(
    trial: Trial, queries: Features, gallery: Features, file: pathlib.Path
) -> dict[str, dict[str, float]]:
    """Figures by k with uniform weights; the own photo is not in the gallery.

    Args:
      trial: of the queries.
      queries, gallery: features.
      file: of the scores' cache.
    """
    rows = trial.first.rows[:, : DEPTHS[-1] + 1]
    scores = candidate_scores(queries, gallery, rows, file, weightings=("uniform",))
    trial = trial._replace(scores=scores).without_own()
    relevant = count_relevant(trial.labels, trial.gallery_labels, without_own=True)
    return {
        str(k): trial.figures(trial.scores[:, :k, 0], ALPHA, relevant) for k in DEPTHS
    }


def compare_packing(
    trial: Trial, queries: Features, gallery: Features, file: pathlib.Path
) -> dict[str, dict[str, float]]:
    """Figures by how the gallery keeps its patches; uniform weights, own photo removed.

    Args: as `sweep_depth`.
    """
    relevant = count_relevant(trial.labels, trial.gallery_labels, without_own=True)
    rows, table = trial.first.rows[:, : K + 1], {}
    for kind in STORED:
        needed = np.unique(rows)
        patches = np.array(gallery.faces.patches)
        for row in needed:
            kept = pack(patches[row], kind)
            patches[row] = unpack(kept, kind, patches[row].shape)
        faces = gallery.faces._replace(patches=patches)
        scores = candidate_scores(
            queries,
            gallery._replace(faces=faces),
            rows,
            file.with_name(f"{file.stem}_{kind}.npy"),
            weightings=("uniform",),
        )
        two = trial._replace(scores=scores).without_own()
        table[kind] = two.figures(two.scores[:, :, 0], ALPHA, relevant)
    return table


def compare_alone(
    trial: Trial, queries: Features, gallery: Features, file: pathlib.Path
) -> dict[str, dict]:
    """Table 5.3: ranks by patches alone against two stages, own photo removed.

    Args: as `sweep_depth`.
    """
    alone = whole_gallery_scores(queries, gallery, file, weightings=ALONE)
    relevant = count_relevant(trial.labels, trial.gallery_labels, without_own=True)
    own = np.arange(alone.shape[1]) == trial.rows[:, None]
    two = trial.without_own()
    table = {}
    for i, name in enumerate(ALONE):
        masked = np.where(own, -np.inf, alone[:, :, i])
        order = np.argsort(-masked, axis=1, kind="stable")[:, : two.first.rows.shape[1]]
        found = trial.gallery_labels[order]
        means = (100 * x.mean() for x in retrieval(found, trial.labels, relevant))
        scores = two.scores[:, :K, WEIGHTINGS.index(name)]
        table[name] = {
            "alone": dict(zip(("p_at_1", "rp", "map_at_r"), means, strict=True)),
            "two_stages": two.figures(scores, ALPHA, relevant),
        }
    return table


def measure_time(queries: Features, gallery: Features) -> dict[str, float]:
    """Processor milliseconds a query of both stages, programs warm."""

    def milliseconds(run: Callable[[], object], count: int) -> float:
        run()
        start = time.process_time()  # other programs do not count
        run()
        return 1e3 * (time.process_time() - start) / count

    some, few = (select(queries, np.arange(n)).faces for n in (TIMED, 2))
    faces = gallery.faces
    first = first_stage(some, faces, ranks=K)
    times = {"stage 1": milliseconds(lambda: first_stage(some, faces, ranks=K), TIMED)}
    for name in ALONE:
        again = partial(second_stage, some, faces, first.rows, weighting=name)
        times[f"stage 2, {name}"] = milliseconds(again, TIMED)
    alone = partial(rank_by_patches, few, faces, ranks=K, weighting="uniform", chunk=2)
    times["EMD at stage 1, uniform"] = milliseconds(alone, 2)
    return times


def run_study(
    archive: str,
    points: str,
    weights: str,
    output: pathlib.Path,
    kinds: dict[str, int],
    *,
    swept: int,
    alone: int,
) -> dict:
    """Embed, compare and count.

    Args:
      archive, points, weights: files, see the flags.
      output: folder; features and scores go to its `cache`.
      kinds: what is done to the queries -> how many are drawn, 0 = all.
      swept: queries of the sweep of k, 0 = no sweep.
      alone: queries that are compared with the whole gallery by patches, 0 = none.
    Returns: what `report.write` reads.
    Raises: ValueError: an unknown kind; a file that is not what it should be.
    """
    unknown = sorted(kinds.keys() - {"plain", *ALTERATIONS})
    if unknown:
        raise ValueError(
            f"reranking: unknown queries {unknown[0]!r}; use plain or one of "
            f"{tuple(ALTERATIONS)}."
        )
    cache = output / "cache"
    photos = read_lfw(archive, points)
    gallery = embed_photos(photos, weights, cache / "features_plain")
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
            queries = embed_photos(changed, weights, folder, ALTERATIONS[kind])
        file = cache / f"scores_{name}.npy"
        trial = score_kind(rows, queries, gallery, photos.labels, file)
        modes = ("removed", "counted") if kind == "plain" else ("removed", "kept")
        results["queries"][kind] = {
            "count": len(rows),
            **{own: count_all(trial, own=own) for own in modes},
        }
        for part, size, run in (
            ("depth", swept, sweep_depth),
            ("packing", swept, compare_packing),
            ("alone", alone, compare_alone),
        ):
            size = min(size, len(rows))
            if size and kind in ("plain", "crop"):
                few = select(queries, np.arange(size))
                file = cache / f"scores_{kind}_{size}_{part}.npy"
                results[part][kind] = run(trial.some(size), few, gallery, file)
        (output / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    timing = cache / "milliseconds.json"
    if not timing.exists():
        timing.write_text(json.dumps(measure_time(gallery, gallery)))
    results["milliseconds"] = json.loads(timing.read_text())
    return results


def score_kind(
    rows: np.ndarray,
    queries: Features,
    gallery: Features,
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
    ranks = max(int(np.bincount(labels).max()), DEPTHS[-1]) + 1
    first = first_stage(queries.faces, gallery.faces, ranks=ranks)
    scores = candidate_scores(queries, gallery, first.rows[:, : K + 1], file)
    return Trial(rows, labels[rows], labels, first, scores)


def main(argv: list[str]) -> None:
    """Run the study that the flags describe."""
    logging.set_verbosity(logging.WARNING)
    try:
        if argv[1:]:
            raise ValueError(f"{argv[1]!r} is not a flag; write --name=value")
        kinds = dict(text.split(":") for text in _QUERIES.value)
        output = pathlib.Path(_OUTPUT.value)
        output.mkdir(parents=True, exist_ok=True)
        results = run_study(
            _ARCHIVE.value, _POINTS.value, _WEIGHTS.value, output,
            {kind: int(count) for kind, count in kinds.items()},
            swept=_SWEPT.value, alone=_ALONE.value,
        )  # fmt: skip
    except ValueError as error:
        sys.exit(f"error: {error}")
    (output / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    sys.stdout.write(report.write(results, output))


if __name__ == "__main__":
    app.run(main)
