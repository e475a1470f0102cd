"""Similarity of two faces as the work to turn the patches of one into the other's."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from kprpe_jax.core.features import Features
from kprpe_jax.core.unit import unit
from kprpe_jax.matching.patch_weights import DEFAULT_WEIGHTING, Grids, pair_weights
from kprpe_jax.matching.sinkhorn import Solver, transport


class Match(NamedTuple):
    """How two faces match.

    Attributes:
      score: float32 [...], similarity sum_ij f_ij cos_ij, at most the moved weight. The
        thesis' distance (Eq. 3.1) is the moved weight less this: with weights that sum
        to 1 both rank alike.
      flow: float32 [..., N, M], f_ij: weight of query patch i matched to gallery patch
        j.
      error: float32 [...], L1 distance of the flow's sums from the weights.
    """

    score: Array
    flow: Array
    error: Array


def patch_similarity(query: Array, gallery: Array) -> Array:
    """Cosines of all pairs of patches; a zero patch has cosine 0 with all (Eq. 3.5).

    Args:
      query: [..., N, C].
      gallery: [..., M, C], leading axes broadcast to the query's.
    Returns: float32 [..., N, M].
    Raises: ValueError: another number of channels.
    """
    if query.shape[-1] != gallery.shape[-1]:
        raise ValueError(
            "patch_similarity: query and gallery must have as many channels; got "
            f"{query.shape[-1]} and {gallery.shape[-1]}; use one network for both."
        )
    # The gallery is the larger side: its lengths divide the products, not the patches.
    gallery = gallery.astype(jnp.float32)
    square = jnp.square(gallery).sum(-1)
    some = square > 0
    length = jnp.where(some, jnp.sqrt(jnp.where(some, square, 1.0)), jnp.inf)
    products = jnp.einsum(
        "...nc,...mc->...nm",
        unit(query),
        gallery,
        precision=jax.lax.Precision.HIGHEST,
    )
    return products / length[..., None, :]


def earth_movers(
    query: Array,
    gallery: Array,
    query_weights: Array,
    gallery_weights: Array,
    solver: Solver = Solver(),  # noqa: B008
) -> Match:
    """Earth mover's similarity of weighted sets of patches.

    The result of a pair does not depend on the pairs beside it, bit for bit; on the
    size of the batch only as the order of sums does. All arrays have gradients.
    Where a side has no weight at all nothing moves: score 0, gradient 0. Weights that
    are negative or NaN are not refused, see `transport`.

    Source: DeepFace-EMD, Sec. 3.1.4, Eqs. 3.1-3.5.
    Args:
      query: [..., N, C] patches.
      gallery: [..., M, C]; leading axes broadcast.
      query_weights: [..., N], not negative.
      gallery_weights: [..., M], not negative; the totals may differ, `Solver.unequal`
        says what then.
      solver: how it is computed.
    Raises: ValueError: shapes or settings that do not fit.
    """
    similarity = patch_similarity(query, gallery)
    return _match(similarity, query_weights, gallery_weights, solver)


def match_faces(
    query: Features,
    gallery: Features,
    *,
    weighting: str = DEFAULT_WEIGHTING,
    grid: Grids | None = None,
    solver: Solver = Solver(),  # noqa: B008
) -> Match:
    """Earth mover's similarity of faces, with weights by a rule.

    Args:
      query, gallery: leading axes broadcast: [Q, 1, ...] and [1, G, ...] compares all.
      weighting: one of `patch_weights.WEIGHTINGS`.
      grid: of the patches, for the weighting `landmarks`.
      solver: how it is computed; `sinkhorn.FAST` gives the same here, sooner.
    Raises: ValueError: as `earth_movers` and `pair_weights`.
    """
    similarity = patch_similarity(query.patches, gallery.patches)
    weights = pair_weights(weighting, query, gallery, similarity, grid=grid)
    return _match(similarity, *weights, solver)


def _match(similarity: Array, a: Array, b: Array, solver: Solver) -> Match:
    plan = transport(1.0 - similarity, a, b, solver)
    return Match((plan.flow * similarity).sum((-2, -1)), plan.flow, plan.error)
