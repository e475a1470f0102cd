"""Evaluators: are people found by altered photos among the photos as they are?

Source: DeepFace-EMD, Sec. 5.2.2 (queries out of distribution).
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from kprpe_jax.core.features import Features
from kprpe_jax.data.faces import FaceRows
from kprpe_jax.evaluation.adversarial import attack_embeddings
from kprpe_jax.evaluation.altered import ALTERATIONS
from kprpe_jax.evaluation.conditions import Evaluator
from kprpe_jax.evaluation.embedding import Embed, map_rows
from kprpe_jax.evaluation.retrieval import count_relevant, retrieval
from kprpe_jax.matching.two_stage import first_stage

KINDS = ("plain", *ALTERATIONS, "adversarial")


def make_evaluators(
    embed: Embed,
    source: FaceRows,
    kinds: Sequence[str] = KINDS,
    *,
    batch_size: int,
    seed: int = 0,
) -> dict[str, Evaluator]:
    """Build the evaluators `identify_KIND`, by cosine alone.

    How a row is altered depends on the seed, the row and the batch size alone, so every
    network and every mesh sees the same queries; `adversarial` ones are made against
    the network itself (PGD).

    Args:
      embed: the network.
      source: decoded rows of people with two images or more; others, and rows of
        nobody (label < 0), are left out.
      kinds: of KINDS.
      batch_size: rows of the global batch; the last one is padded.
      seed: of the alterations.
    Returns: name -> function (state, mesh) -> P@1, R-precision and MAP@R in [0, 1]
      without the query's own image in the gallery, P@1 with it, and the number of
      queries.
    Raises: ValueError: an unknown kind; no person with two images.
    """
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise ValueError(
            f"altered_queries: unknown kind {unknown[0]!r}; use some of {KINDS}."
        )
    labels = source.labels()
    relevant = count_relevant(labels, labels, without_own=True)
    rows = np.flatnonzero((relevant > 0) & (labels >= 0))
    if not rows.size:
        raise ValueError(
            "altered_queries: somebody must have two images; got people of one each; "
            "choose other identities."
        )
    needed, labels = source.select(rows), labels[rows]

    @partial(jax.jit, static_argnames="kind")
    def embed_altered(
        params: Any, collections: Any, batch: dict[str, Array], index: Array, kind: str
    ) -> Array:
        rng = jax.random.fold_in(jax.random.key(seed), index)
        images = batch["image"].astype(jnp.float32) / 127.5 - 1
        keypoints = batch["keypoints"]
        if kind == "adversarial":
            images = attack_embeddings(
                rng, images, lambda x: embed(params, collections, x, keypoints)
            )
        elif kind != "plain":
            images, keypoints = ALTERATIONS[kind](rng, images, keypoints)
        return embed(params, collections, images, keypoints)

    def embed_all(kind: str, state: Any, mesh: Mesh) -> np.ndarray:
        return map_rows(
            lambda batch, index: embed_altered(
                state.params, state.collections, batch, index, kind
            ),
            needed,
            batch_size=batch_size,
            mesh=mesh,
        )

    def identify(kind: str, state: Any, mesh: Mesh) -> dict[str, float]:
        gallery = Features(embed_all("plain", state, mesh), None)
        queries = gallery
        if kind != "plain":
            queries = Features(embed_all(kind, state, mesh), None)
        relevant = count_relevant(labels, labels, without_own=True)
        own = np.arange(len(rows))
        find = partial(first_stage, queries, gallery)
        without = find(ranks=int(relevant.max()), exclude_rows=own)
        result = retrieval(labels[without.rows], labels, relevant)
        nearest = find(ranks=1).rows[:, 0]
        return {
            "p_at_1": float(result.precision_at_1.mean()),
            "r_precision": float(result.r_precision.mean()),
            "map_at_r": float(result.map_at_r.mean()),
            "p_at_1_with_own": float((labels[nearest] == labels).mean()),
            "queries": len(rows),
        }

    return {f"identify_{kind}": partial(identify, kind) for kind in kinds}
