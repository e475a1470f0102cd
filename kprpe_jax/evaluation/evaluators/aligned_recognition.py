"""Type `aligned_recognition`: of a network that aligns faces, and how strongly it does.

Source: Balanced Alignment, Figs. 3 and 7: rank-1 against ANME (Eq. 1).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from kprpe_jax.core.input_spec import to_unit_range
from kprpe_jax.core.unit import direction
from kprpe_jax.evaluation.alignment_strength import alignment_nme
from kprpe_jax.evaluation.embedding import map_rows
from kprpe_jax.evaluation.evaluators import Evaluator
from kprpe_jax.evaluation.evaluators.faces import FaceData
from kprpe_jax.evaluation.identification import outcome_of_scores, rank_accuracy
from kprpe_jax.evaluation.misaligned import check_severities, misalign
from kprpe_jax.evaluation.scores import pair_distance
from kprpe_jax.evaluation.verification import fold_accuracy

# (params, collections, images, landmarks) -> embeddings [B, D], aligned landmarks
Forward = Callable[[Any, Any, Array, Array], tuple[Array, Array]]


class AlignedData:
    """What a run says of its data and its network.

    Args:
      forward: the network; landmarks as fractions, before and after its warp.
      faces: the data.
      eyes: the pupils among the landmarks.
    """

    def __init__(self, forward: Forward, faces: FaceData, eyes: tuple[int, int]):
        self.faces, self.eyes = faces, eyes

        @jax.jit
        def run(params, collections, batch, index, severity):
            rng = jax.random.fold_in(jax.random.key(0), index)
            images = to_unit_range(batch["image"])
            images, landmarks = misalign(rng, images, batch["keypoints"], severity)
            return *forward(params, collections, images, landmarks), landmarks

        self.run = run  # one compiled program for all severities


def build(
    data: AlignedData,
    *,
    split: str = "test",
    identities: tuple = (),
    pairs: int = 2000,
    severity: float = 0.0,
) -> Evaluator:
    """Build the evaluator.

    How a row is misaligned depends on the row and the batch size alone.

    Args:
      data: of the run.
      split, identities: held-out identities, (first, last); () = all.
      pairs: how many are sampled for verification.
      severity: of `misalign`.
    Returns: function (state, mesh) -> `accuracy` of 10-fold verification; `rank_1`,
      the first image of each person being the gallery and all others probes; `anme`;
      `anme_before`, of the images as they come; `count` of images. The `anme`s are of
      images with all landmarks; without any there are none.
    Raises: ValueError: a severity out of its range; as `FaceData.open_pairs`.
    """
    check_severities([severity])
    source, listed = data.faces.open_pairs("", split, identities, pairs)
    labels, known = source.labels(), source.has_keypoints()

    def evaluate(state: Any, mesh: Mesh) -> dict[str, float]:
        run = partial(data.run, state.params, state.collections)
        embeddings, after, before = map_rows(
            lambda batch, index: run(batch, index, np.float32(severity)),
            source,
            batch_size=data.faces.batch_size,
            mesh=mesh,
        )
        distance = pair_distance(embeddings[listed.first], embeddings[listed.second])
        results = {
            "accuracy": fold_accuracy(np.asarray(distance), listed.same).mean,
            "rank_1": rank_1(embeddings, labels),
            "count": len(source),
        }
        if known.any():
            height, width = data.faces.image_size
            points = {"anme": after[known], "anme_before": before[known]}
            results |= {
                name: alignment_nme(landmarks * (width, height), eyes=data.eyes)
                for name, landmarks in points.items()
            }
        return results

    return evaluate


def rank_1(embeddings: np.ndarray, labels: np.ndarray) -> float:
    """Share of probes whose nearest gallery image is of the same person.

    Args:
      embeddings: [N, D], not normalized.
      labels: int [N]; each person's first row is the gallery, the others are probes;
        rows with a label < 0 are left out.
    Raises: ValueError: no person has two images.
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
