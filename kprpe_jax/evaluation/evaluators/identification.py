"""Type `identification`: are people found by altered photos among the unaltered?

Source: DeepFace-EMD, Sec. 5.2.2 (queries out of distribution).
"""

from functools import partial

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.core.features import Features
from kprpe_jax.evaluation.adversarial import attack_embeddings
from kprpe_jax.evaluation.altered import ALTERATIONS
from kprpe_jax.evaluation.embedding import Treatment, embed
from kprpe_jax.evaluation.evaluators import Evaluator
from kprpe_jax.evaluation.evaluators.faces import FaceData
from kprpe_jax.evaluation.retrieval import count_relevant, retrieval
from kprpe_jax.matching.two_stage import first_stage

QUERIES = ("plain", *ALTERATIONS, "adversarial")


def build(
    data: FaceData,
    *,
    queries: str = "plain",
    dataset: str = "",
    split: str = "train",
    identities: tuple = (),
    seed: int = 0,
) -> Evaluator:
    """Build the evaluator, by cosine alone.

    How a row is altered depends on the seed, the row and the batch size alone, so every
    network and every mesh sees the same queries; `adversarial` ones are made against
    the network itself (PGD). Queries are embedded without their mirror images.

    Args:
      data: of the run.
      queries: how they are altered, one of QUERIES.
      dataset: "" = that of training.
      split, identities: held-out identities, (first, last); () = all. Those with one
        image, and unlabeled rows (< 0), are left out.
      seed: of the alterations.
    Returns: function (recognizer, mesh) -> P@1, R-precision and MAP@R in [0, 1]
      without the query's own image in the gallery, P@1 with it, and the number of
      queries.
    Raises: ValueError: unknown queries; no person with two images; as `FaceData.open`.
    """
    if queries not in QUERIES:
        raise ValueError(
            f"queries must be one of {', '.join(QUERIES)}; got {queries!r}."
        )
    source = data.open(dataset, split, identities)
    labels = source.labels()
    relevant = count_relevant(labels, labels, without_own=True)
    rows = np.flatnonzero((relevant > 0) & (labels >= 0))
    if not rows.size:
        raise ValueError(
            "somebody must have two images; got people of one each; choose other "
            "identities."
        )
    needed, labels = source.select(rows), labels[rows]
    run = partial(embed, rows=needed, batch_size=data.batch_size, seed=seed)

    def evaluate(recognizer: Recognizer, mesh: Mesh) -> dict[str, float]:
        gallery = run(recognizer, mesh=mesh)
        asked = gallery
        if queries == "adversarial":
            asked = run(recognizer, mesh=mesh, treatment=_attack, arguments=recognizer)
        elif queries != "plain":
            asked = run(recognizer, mesh=mesh, treatment=TREATMENTS[queries])
        return identify(asked, gallery, labels)

    return evaluate


def identify(
    queries: Features, gallery: Features, labels: np.ndarray
) -> dict[str, float]:
    """Metrics of a search in which row i of the gallery is query i's own image."""
    relevant = count_relevant(labels, labels, without_own=True)
    find = partial(first_stage, queries, gallery)
    without = find(ranks=int(relevant.max()), exclude_rows=np.arange(len(labels)))
    result = retrieval(labels[without.rows], labels, relevant)
    nearest = find(ranks=1).rows[:, 0]
    return {
        "p_at_1": float(result.precision_at_1.mean()),
        "r_precision": float(result.r_precision.mean()),
        "map_at_r": float(result.map_at_r.mean()),
        "p_at_1_with_own": float((labels[nearest] == labels).mean()),
        "queries": len(labels),
    }


def _alter(kind: str) -> Treatment:
    return lambda rng, images, keypoints, _: ALTERATIONS[kind](rng, images, keypoints)


TREATMENTS = {kind: _alter(kind) for kind in ALTERATIONS}


def _attack(
    rng: Array, images: Array, keypoints: Array, recognizer: Recognizer
) -> tuple[Array, Array]:
    """Images that the recognizer takes for somebody else."""
    look = lambda x: jnp.asarray(recognizer.embed(x, keypoints))  # noqa: E731
    return attack_embeddings(rng, images, look), keypoints
