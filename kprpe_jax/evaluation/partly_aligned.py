"""Verification at every step between a detector's crop and the aligned face.

Source: KP-RPE, Fig. 5.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from kprpe_jax.data.aligned_faces import AlignedFaces
from kprpe_jax.data.faces import FaceRows
from kprpe_jax.evaluation.conditions import Evaluator
from kprpe_jax.evaluation.embedding import Embed, map_rows, with_mirror
from kprpe_jax.evaluation.pairs import Pairs
from kprpe_jax.evaluation.scores import pair_distance
from kprpe_jax.evaluation.verification import fold_accuracy


def make_evaluator(
    embed: Embed,
    faces: FaceRows,
    pairs: Pairs,
    shares: Sequence[float],
    *,
    batch_size: int,
    mirror: str = "sum",
) -> Evaluator:
    """Build the evaluator.

    Args:
      embed: the network.
      faces: photos of any size, all with keypoints.
      pairs: rows to compare; only these are read.
      shares: of the way to the alignment, in [0, 1]: 0 detected, 1 aligned.
      batch_size: rows of the global batch; the last one is padded.
      mirror: of `with_mirror`.
    Returns: function (state, mesh) -> {share: accuracy over the folds of the pairs},
      and the number of pairs.
    Raises: ValueError: a share outside of [0, 1].
    """
    for share in shares:
        if not 0 <= share <= 1:
            raise ValueError(
                "config.evals.alignment_shares must lie in [0, 1], from detected to "
                f"aligned; got {share}."
            )
    rows = np.unique(np.concatenate([pairs.first, pairs.second]))
    first, second = (np.searchsorted(rows, s) for s in (pairs.first, pairs.second))
    needed = faces.select(rows)
    embed_both = with_mirror(embed, mirror)

    @jax.jit
    def embed_batch(params, collections, batch):
        images = batch["image"].astype(np.float32) / 127.5 - 1
        return embed_both(params, collections, images, batch["keypoints"])

    def evaluate(state: Any, mesh: Mesh) -> dict[str, float]:
        results: dict[str, float] = {}
        for share in shares:
            x = map_rows(
                lambda batch, _: embed_batch(state.params, state.collections, batch),
                AlignedFaces.of(needed, share),
                batch_size=batch_size,
                mesh=mesh,
            )
            distance = np.asarray(pair_distance(x[first], x[second]))
            folds = fold_accuracy(distance, pairs.same, num_folds=pairs.num_folds)
            results[f"{share:g}"] = folds.mean
        return {**results, "pairs": len(pairs.same)}

    return evaluate
