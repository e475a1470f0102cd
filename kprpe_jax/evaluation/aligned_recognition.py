"""Recognition by a network that aligns faces itself, and how strongly it does.

Source: Balanced Alignment, Figs. 3 and 7: rank-1 against ANME (Eq. 1).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from kprpe_jax.core.unit import direction
from kprpe_jax.data.faces import FaceRows
from kprpe_jax.evaluation.alignment_strength import alignment_nme
from kprpe_jax.evaluation.conditions import Evaluator
from kprpe_jax.evaluation.embedding import map_rows
from kprpe_jax.evaluation.identification import outcome_of_scores, rank_accuracy
from kprpe_jax.evaluation.misaligned import check_severities, misalign
from kprpe_jax.evaluation.pairs import Pairs
from kprpe_jax.evaluation.scores import pair_distance
from kprpe_jax.evaluation.verification import fold_accuracy

# (params, collections, images, landmarks) -> embeddings [B, D], aligned landmarks
Forward = Callable[[Any, Any, Array, Array], tuple[Array, Array]]


def make_evaluators(
    forward: Forward,
    source: FaceRows,
    pairs: Pairs,
    severities: Sequence[float],
    *,
    eyes: tuple[int, int],
    batch_size: int,
) -> dict[str, Evaluator]:
    """Build evaluators: `aligned`, and `misaligned_S` for each severity S.

    How a row is misaligned depends on the row and the batch size alone.

    Args:
      forward: the network; landmarks as fractions, before and after its warp.
      source: decoded rows with landmarks for keypoints.
      pairs: of rows, for verification.
      severities: of `misalign`.
      eyes: the pupils among the landmarks.
      batch_size: rows of the global batch; the last one is padded.
    Returns: name -> function (state, mesh) -> `accuracy` of 10-fold verification;
      `rank_1`, the first image of each person being the gallery and all others probes;
      `anme`; `anme_before`, of the images as they come; `count` of images. The `anme`s
      are of images with landmarks; without any there are none.
    Raises: ValueError: as `check_severities`.
    """
    check_severities(severities)
    labels, known = source.labels(), source.has_keypoints()

    @jax.jit
    def run(params, collections, batch, index, severity):
        rng = jax.random.fold_in(jax.random.key(0), index)
        images = batch["image"].astype(jnp.float32) / 127.5 - 1
        images, landmarks = misalign(rng, images, batch["keypoints"], severity)
        return *forward(params, collections, images, landmarks), landmarks

    def evaluate(severity: float, state: Any, mesh: Mesh) -> dict[str, float]:
        embeddings, after, before = map_rows(
            lambda batch, index: run(
                state.params, state.collections, batch, index, jnp.float32(severity)
            ),
            source,
            batch_size=batch_size,
            mesh=mesh,
        )
        distance = pair_distance(embeddings[pairs.first], embeddings[pairs.second])
        results = {
            "accuracy": fold_accuracy(np.asarray(distance), pairs.same).mean,
            "rank_1": rank_1(embeddings, labels),
            "count": len(source),
        }
        if known.any():
            height, width = source[0]["image"].shape[:2]
            points = {"anme": after[known], "anme_before": before[known]}
            results |= {
                name: alignment_nme(landmarks * (width, height), eyes=eyes)
                for name, landmarks in points.items()
            }
        return results

    names = {"aligned": 0.0, **{f"misaligned_{s:g}": s for s in severities}}
    return {name: partial(evaluate, severity) for name, severity in names.items()}


def rank_1(embeddings: np.ndarray, labels: np.ndarray) -> float:
    """Share of probes whose nearest gallery image is of the same person.

    Args:
      embeddings: [N, D], not normalized.
      labels: int [N]; each person's first row is the gallery, the others are probes;
        rows with a label < 0 are nobody's and left out.
    Raises: ValueError: nobody has two images.
    """
    embeddings, labels = embeddings[labels >= 0], labels[labels >= 0]
    _, gallery = np.unique(labels, return_index=True)
    probes = np.setdiff1d(np.arange(len(labels)), gallery)
    if not len(probes):
        raise ValueError(
            f"rank_1: someone must have two images; got {len(labels)} images of as "
            "many people; give more rows"
        )
    unit = np.asarray(direction(jnp.asarray(embeddings)))
    outcome = outcome_of_scores(
        unit[probes] @ unit[gallery].T, labels[probes][:, None] == labels[gallery]
    )
    return float(rank_accuracy(outcome, [1])[0])
