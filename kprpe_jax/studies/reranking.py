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
from typing import NamedTuple

import numpy as np
from absl import app, flags, logging

from kprpe_jax.evaluation.altered import ALTERATIONS
from kprpe_jax.evaluation.retrieval import count_relevant, retrieval
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
K, ALPHA = 100, 0.7
SWEPT, ALONE_QUERIES, TIMED = 200, 12, 16  # queries of the dear parts
_ARCHIVE = flags.DEFINE_string("archive", None, "Aligned photos, .tar.gz.")
_POINTS = flags.DEFINE_string("points", None, "Landmarks, .npz.")
_WEIGHTS = flags.DEFINE_string("weights", None, "MobileFaceNet's weights.")
_OUTPUT = flags.DEFINE_string("output", "reports/reranking", "Folder of the report.")
_QUERIES = flags.DEFINE_list(
    "queries", ["plain:2000", "crop:1000", "mask:500", "sunglasses:500"],
    "What is done to the queries, and how many are drawn; 0 = all.",
)  # fmt: skip
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


def sweep_depth(trial: Trial) -> dict[str, dict[str, float]]:
    """Figures by k; the own photo is not in the gallery."""
    trial = trial.without_own()
    relevant = count_relevant(trial.labels, trial.gallery_labels, without_own=True)
    return {
        str(k): trial.figures(trial.scores[:, :k, 0], ALPHA, relevant) for k in DEPTHS
    }


def compare_alone(trial: Trial, alone: np.ndarray) -> dict[str, dict]:
    """Table 5.3: ranks by patches alone against two stages, own photo removed.

    Args:
      trial: of the same queries.
      alone: float32 [Q, G, ALONE].
    """
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
    """Milliseconds a query of both stages on this machine, programs warm."""

    def milliseconds(run: Callable[[], object], count: int) -> float:
        run()
        start = time.perf_counter()
        run()
        return 1e3 * (time.perf_counter() - start) / count

    ranks = len(gallery.pooled)
    some, few = (select(queries, np.arange(n)).faces for n in (TIMED, 2))
    faces = gallery.faces
    first = first_stage(some, faces, ranks=K)
    times = {"stage1": milliseconds(lambda: first_stage(some, faces, ranks=K), TIMED)}
    for name in ALONE:
        times[f"stage2_{name}"] = milliseconds(
            lambda name=name: second_stage(some, faces, first.rows, weighting=name),
            TIMED,
        )
        times[f"alone_{name}"] = milliseconds(
            lambda name=name: rank_by_patches(
                few, faces, ranks=ranks, weighting=name, chunk=2
            ),
            2,
        )
    return times


def run_study(
    archive: str, points: str, weights: str, output: pathlib.Path, kinds: dict[str, int]
) -> dict:
    """Embed, compare and count.

    Args:
      archive, points, weights: files, see the flags.
      output: folder; features and scores go to its `cache`.
      kinds: what is done to the queries -> how many are drawn, 0 = all.
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
        "alone": {},
    }
    for kind, count in kinds.items():
        # The first queries stay the same ones whatever their number is.
        rows = np.random.default_rng(0).permutation(len(photos.labels))[: count or None]
        if kind == "plain":
            queries = select(gallery, rows)
        else:
            queries = embed_photos(
                photos.select(rows),
                weights,
                cache / f"features_{kind}_{len(rows)}",
                ALTERATIONS[kind],
            )
        run_kind(kind, rows, queries, gallery, photos.labels, cache, results)
        (output / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    timing = cache / "milliseconds.json"
    if not timing.exists():
        timing.write_text(json.dumps(measure_time(gallery, gallery)))
    results["milliseconds"] = json.loads(timing.read_text())
    return results


def run_kind(
    kind: str,
    rows: np.ndarray,
    queries: Features,
    gallery: Features,
    labels: np.ndarray,
    cache: pathlib.Path,
    results: dict,
) -> None:
    """Score one kind of queries and add its figures to the results."""
    ranks = int(np.bincount(labels).max()) + 1
    first = first_stage(queries.faces, gallery.faces, ranks=max(ranks, DEPTHS[-1] + 1))

    def score(name: str, depth: int, part: slice, weightings: tuple) -> np.ndarray:
        return candidate_scores(
            select(queries, np.arange(len(rows))[part]),
            gallery,
            first.rows[part, :depth],
            cache / f"scores_{kind}_{len(rows)}_{name}.npy",
            weightings=weightings,
        )

    trial = Trial(
        rows, labels[rows], labels, first,
        score("candidates", K + 1, np.s_[:], WEIGHTINGS),
    )  # fmt: skip
    modes = ("removed", "counted") if kind == "plain" else ("removed", "kept")
    results["queries"][kind] = {
        "count": len(rows),
        **{own: count_all(trial, own=own) for own in modes},
    }
    if kind not in ("plain", "crop"):
        return

    def part_of(trial: Trial, part: slice) -> Trial:
        cut = (x[part] for x in (trial.rows, trial.labels))
        first = Ranking(*(x[part] for x in trial.first))
        return Trial(*cut, labels, first, trial.scores[part])

    some = part_of(trial, np.s_[:SWEPT])
    deep = score("deep", DEPTHS[-1] + 1, np.s_[:SWEPT], ("uniform",))
    results["depth"][kind] = sweep_depth(some._replace(scores=deep))
    few = part_of(trial, np.s_[:ALONE_QUERIES])
    alone = whole_gallery_scores(
        select(queries, np.arange(len(few.rows))),
        gallery,
        cache / f"scores_{kind}_{len(rows)}_alone.npy",
        weightings=ALONE,
    )
    results["alone"][kind] = compare_alone(few, alone)


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
        )  # fmt: skip
    except ValueError as error:
        sys.exit(f"error: {error}")
    (output / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    sys.stdout.write(report.write(results, output))


if __name__ == "__main__":
    app.run(main)
