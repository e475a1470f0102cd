"""Type `official_pairs`: verification by a data set's own list: LFW, CFP-FP, AgeDB."""

import time

import numpy as np
from jax.sharding import Mesh

from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.core.checks import finite
from kprpe_jax.evaluation.embedding import embed
from kprpe_jax.evaluation.evaluators import Evaluator
from kprpe_jax.evaluation.evaluators.faces import FaceData
from kprpe_jax.evaluation.pair_verification import summary, verify_pairs
from kprpe_jax.evaluation.scores import pair_distance


def build(data: FaceData, *, dataset: str, mirror: str = "sum") -> Evaluator:
    """Build the evaluator.

    Args:
      data: of the run.
      dataset: with an official list of pairs.
      mirror: of `embed`.
    Returns: function (recognizer, mesh) -> `summary`, the number of pairs and images,
      and images a second from the files to the embeddings, compilation left out. Where
      the pairs are of one kind, rates are not defined, and there is their mean
      similarity instead. It raises ValueError for an embedding that is not finite.
    Raises: ValueError: as `open_pair_set`.
    """
    faces, pairs = data.open_official_pairs(dataset)
    options = dict(batch_size=data.batch_size, mirror=mirror)

    def evaluate(recognizer: Recognizer, mesh: Mesh) -> dict[str, float]:
        first = faces.select(np.arange(1))
        embed(recognizer, first, mesh=mesh, **options)  # compiles
        start = time.perf_counter()
        embeddings = embed(recognizer, faces, mesh=mesh, **options).embeddings
        seconds = time.perf_counter() - start
        finite("official_pairs", embeddings)
        sides = embeddings[pairs.first], embeddings[pairs.second]
        counts = {
            "pairs": len(pairs.same),
            "images": len(embeddings),
            "images_per_second": len(embeddings) / seconds,
        }
        if pairs.same.all() or not pairs.same.any():
            similarity = 1 - np.asarray(pair_distance(*sides)) / 2
            kind = "genuine" if pairs.same.all() else "impostor"
            return {f"{kind}_similarity": float(similarity.mean()), **counts}
        result = verify_pairs(*sides, pairs.same, num_folds=pairs.num_folds)
        return {**summary(result), **counts}

    return evaluate
