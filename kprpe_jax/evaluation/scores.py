"""Similarity of embeddings, and what every metric asks of scores.

Embeddings are compared in compiled float32; what is counted afterward is counted on
the host in integers and float64, so that a metric is exact for the scores it is given.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from kprpe_jax.core.checks import finite
from kprpe_jax.core.unit import direction


@jax.jit
def pair_similarity(first: ArrayLike, second: ArrayLike) -> Array:
    """Cosine of each row with its partner; a zero embedding has cosine 0 with all.

    Args:
      first, second: [P, D], not normalized.
    Returns: float32 [P] in [-1, 1] up to round-off.
    """
    return (direction(jnp.asarray(first)) * direction(jnp.asarray(second))).sum(-1)


@jax.jit
def pair_distance(first: ArrayLike, second: ArrayLike) -> Array:
    """Squared Euclidean distance of the unit embeddings, 2 - 2 cosine.

    Args:
      first, second: [..., P, D], not normalized.
    Returns: float32 [..., P] in [0, 4]; 2 where an embedding is zero, which is
      like nothing, not even another zero; NaN where one is not finite.
    """
    first, second = direction(jnp.asarray(first)), direction(jnp.asarray(second))
    distance = jnp.square(first - second).sum(-1)
    unlike = ~(first.any(-1) & second.any(-1)) & ~jnp.isnan(distance)
    return jnp.where(unlike, 2.0, distance)


def stream_pair_similarity(
    embeddings: ArrayLike,
    first: np.ndarray,
    second: np.ndarray,
    *,
    block: int = 1 << 15,
) -> Iterator[np.ndarray]:
    """Cosines of millions of pairs, a block at a time.

    Args:
      embeddings: [N, D], not normalized.
      first, second: int [P], rows of `embeddings`.
      block: pairs per yielded array; 3 * block * D * 4 bytes are in use at once.
    Yields: float32 [<= block], in order.
    Raises: ValueError: first and second differ in length, or name rows that are not
      there.
    """
    embeddings = jnp.asarray(embeddings)
    first, second = np.asarray(first), np.asarray(second)
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(
            "stream_pair_similarity: first and second must be lists of one length; got "
            f"{first.shape} and {second.shape}; give two rows per pair."
        )
    rows = np.concatenate([first, second])
    if rows.size and (rows.min() < 0 or rows.max() >= len(embeddings)):
        raise ValueError(
            f"stream_pair_similarity: rows must lie in [0, {len(embeddings)}); got "
            f"{rows.min()} to {rows.max()}; look them up with `template_rows`."
        )

    def blocks() -> Iterator[np.ndarray]:
        for start in range(0, len(first), block):
            part = slice(start, start + block)
            count = len(first[part])
            # Every block has the same shape, so that one program serves all.
            ids = [np.resize(rows[part], min(block, len(first)))
                   for rows in (first, second)]  # fmt: skip
            yield np.asarray(_gathered_similarity(embeddings, *ids))[:count]

    return blocks()


@jax.jit
def _gathered_similarity(embeddings: Array, first: Array, second: Array) -> Array:
    return pair_similarity(embeddings[first], embeddings[second])


def checked_scores(name: str, scores: ArrayLike, same: ArrayLike) -> tuple[
    np.ndarray, np.ndarray
]:  # fmt: skip
    """Scores and labels of pairs on the host, fit for a metric.

    Args:
      name: of the caller, for the error.
      scores: float [P].
      same: bool or 0/1 [P].
    Returns: scores as they are, `same` as bool.
    Raises: ValueError: other shapes, a score that is not finite, other labels, or pairs
      of one kind only, for which rates are not defined.
    """
    scores, same = finite(name, scores), genuine(name, same)
    if scores.ndim != 1 or scores.shape != same.shape:
        raise ValueError(
            f"{name}: scores and same must be lists of one length; got {scores.shape} "
            f"and {same.shape}; give one label per pair."
        )
    if same.all() or not same.any():
        raise ValueError(
            f"{name}: there must be both genuine and impostor pairs; got {same.sum()} "
            f"and {(~same).sum()}; add pairs of the missing kind."
        )
    return scores, same


def genuine(name: str, same: ArrayLike) -> np.ndarray:
    """Labels on the host as bool.

    Args:
      name: of the caller, for the message.
      same: bool or 0/1, any shape; True = the same person.
    Raises: ValueError: any other value, such as NaN or -1.
    """
    same = np.asarray(same)
    as_bool = same.astype(bool)
    if (as_bool != same).any():
        raise ValueError(
            f"{name}: same must be True or False for every pair; got "
            f"{same[as_bool != same].flat[0]}; leave out pairs that are neither."
        )
    return as_bool
