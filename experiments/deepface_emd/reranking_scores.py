"""Earth mover's similarities behind `reranking`, kept on disk between runs."""

import os
import pathlib
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from experiments.deepface_emd.reranking_features import PhotoFeatures, select
from kprpe_jax.matching.earth_movers import patch_similarity
from kprpe_jax.matching.patch_weights import correlation_weights, pair_weights
from kprpe_jax.matching.sinkhorn import FAST, transport

WEIGHTINGS = ("uniform", "apc", "cc", "sc", "landmarks", "sc_distance")


@partial(jax.jit, static_argnames="weightings")
def pair_scores(
    query: PhotoFeatures, gallery: PhotoFeatures, weightings: tuple[str, ...]
) -> Array:
    """Earth mover's similarities with several weightings, of cosines computed once.

    Args:
      query: [Q, ...].
      gallery: [Q, k, ...], or [1, k, ...] for all.
    Returns: float32 [Q, k, weightings].
    """
    query = jax.tree.map(lambda x: x[:, None], query)
    similarity = patch_similarity(query.faces.patches, gallery.faces.patches)

    def score(kind: str) -> Array:
        if kind == "cc":
            weights = (
                correlation_weights(query.faces.patches, gallery.pooled),
                correlation_weights(gallery.faces.patches, query.pooled),
            )
        elif kind == "landmarks":
            weights = query.density, gallery.density
        else:
            weights = pair_weights(kind, query.faces, gallery.faces, similarity)
        plan = transport(1.0 - similarity, *weights, FAST)
        return (plan.flow * similarity).sum((-2, -1))

    return jnp.stack([score(kind) for kind in weightings], -1)


def candidate_scores(
    queries: PhotoFeatures,
    gallery: PhotoFeatures,
    rows: np.ndarray,
    file: pathlib.Path,
    *,
    weightings: Sequence[str] = WEIGHTINGS,
    chunk: int = 1,
) -> np.ndarray:
    """Scores of every query with its candidates, from `file` where they are there.

    Args:
      queries: Q of them.
      gallery: G.
      rows: int [Q, k].
      file: .npy, written whole or not at all.
      chunk: queries compared at once.
    Returns: float32 [Q, k, weightings].
    """
    if not file.exists():
        parts = []
        for start in range(0, len(rows), chunk):
            at = np.minimum(np.arange(start, start + chunk), len(rows) - 1)
            pair = select(queries, at), select(gallery, rows[at])
            parts.append(np.asarray(pair_scores(*pair, tuple(weightings))))
        _write(file, np.concatenate(parts)[: len(rows)])
    return np.load(file)


def whole_gallery_scores(
    queries: PhotoFeatures,
    gallery: PhotoFeatures,
    file: pathlib.Path,
    *,
    weightings: Sequence[str],
    chunk: int = 1,
    block: int = 100,
) -> np.ndarray:
    """As `candidate_scores`, of every query with every gallery image: [Q, G, W]."""
    if not file.exists():
        count, parts = len(gallery.pooled), []
        for start in range(0, count, block):
            at = np.minimum(np.arange(start, start + block), count - 1)
            part = jax.tree.map(jnp.asarray, select(gallery, at[None]))
            column = [
                np.asarray(
                    pair_scores(
                        select(
                            queries, np.arange(q, min(q + chunk, len(queries.pooled)))
                        ),
                        part,
                        tuple(weightings),
                    )
                )
                for q in range(0, len(queries.pooled), chunk)
            ]
            parts.append(np.concatenate(column))
        _write(file, np.concatenate(parts, 1)[:, :count])
    return np.load(file)


def _write(file: pathlib.Path, values: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(file.name + ".unfinished")
    with unfinished.open("wb") as f:
        np.save(f, values)
    os.replace(unfinished, file)
