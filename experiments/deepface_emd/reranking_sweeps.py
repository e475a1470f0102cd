"""Sweeps behind `reranking`: k, how patches are stored, patches at stage 1, time."""

import pathlib
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from experiments.deepface_emd.reranking_features import PhotoFeatures, select
from experiments.deepface_emd.reranking_scores import (
    WEIGHTINGS,
    candidate_scores,
    whole_gallery_scores,
)
from experiments.deepface_emd.reranking_trial import K, Trial
from kprpe_jax.evaluation.retrieval import count_relevant, retrieval
from kprpe_jax.gallery.packing import pack, unpack
from kprpe_jax.matching.matchers import EarthMoversMatcher
from kprpe_jax.matching.two_stage import first_stage, rank_by_patches

ALPHA = 0.7
DEPTHS = (10, 50, 100, 200, 300)
ALONE = ("uniform", "apc", "sc")  # weightings at stage 1
STORED = ("float32", "bfloat16", "int8")
TIMED = 16  # queries


def sweep_depth(
    trial: Trial, queries: PhotoFeatures, gallery: PhotoFeatures, file: pathlib.Path
) -> dict[str, dict[str, float]]:
    """Figures by k with uniform weights; the own photo is not in the gallery.

    Args:
      trial: of the queries.
      queries, gallery: features.
      file: of the scores' cache.
    """
    depths = [k for k in DEPTHS if k < len(gallery.pooled)]
    rows = trial.first.rows[:, : depths[-1] + 1]
    scores = candidate_scores(queries, gallery, rows, file, weightings=("uniform",))
    trial = trial._replace(scores=scores).without_own()
    relevant = count_relevant(trial.labels, trial.gallery_labels, without_own=True)
    return {
        str(k): trial.figures(trial.scores[:, :k, 0], ALPHA, relevant) for k in depths
    }


def compare_packing(
    trial: Trial, queries: PhotoFeatures, gallery: PhotoFeatures, file: pathlib.Path
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
    trial: Trial, queries: PhotoFeatures, gallery: PhotoFeatures, file: pathlib.Path
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


def measure_time(queries: PhotoFeatures, gallery: PhotoFeatures) -> dict[str, float]:
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
        again = partial(EarthMoversMatcher(name).score, some, faces, first.rows)
        times[f"stage 2, {name}"] = milliseconds(again, TIMED)
    alone = partial(rank_by_patches, few, faces, ranks=K, weighting="uniform", chunk=2)
    times["EMD at stage 1, uniform"] = milliseconds(alone, 2)
    return times
