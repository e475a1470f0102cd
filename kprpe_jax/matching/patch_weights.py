"""How much each patch of a face matters when two faces are compared.

All weights of an image are not negative and sum to 1, or are all zero: where nothing of
the image correlates with the other one, or none of its keypoints lies inside. A patch
set without weight moves nothing and has similarity 0 (`sinkhorn.transport`).
"""

import jax
import jax.numpy as jnp
from jax import Array

from kprpe_jax.core.checks import check_option
from kprpe_jax.core.features import Features
from kprpe_jax.core.unit import unit

WEIGHTINGS = (
    "uniform", "apc", "cc", "sc", "landmarks", "sc_distance", "apc_joint",
    "apc_unit", "cc_unit", "apc_joint_unit",
)  # fmt: skip
# The paper's choice. On LFW (docs/matching.md, alpha 0.7) it is uniform's equal within
# the standard error on all four kinds of queries, and ahead on crops and on pairs.
DEFAULT_WEIGHTING = "apc"

# (rows, columns) of patches; a pair of them where query and gallery differ.
Grid = tuple[int, int]
Grids = Grid | tuple[Grid, Grid]

_LEAST_TOTAL = 1e-12  # less counts as none: its gradient would not be finite


def normalize(weights: Array) -> Array:
    """Weights that sum to 1 over the last axis, all zero where they were (Sec. 3.1.4).

    Args:
      weights: float32 [..., N], not negative.
    """
    total = weights.sum(-1, keepdims=True)
    some = total > _LEAST_TOTAL
    return jnp.where(some, weights / jnp.where(some, total, 1.0), 0.0)


def uniform_weights(patches: Array) -> Array:
    """1 / N each (Eq. 3.6).

    Args:
      patches: [..., N, C].
    Returns: float32 [..., N].
    """
    count = patches.shape[-2]
    return jnp.full(patches.shape[:-1], 1 / count, jnp.float32)


def correlation_weights(patches: Array, other: Array) -> Array:
    """Each patch's dot product with what sums up the other image.

    Source: Eq. 3.7 (APC): the other's average of patches; CC: the other's embedding.
    Args:
      patches: [..., N, C].
      other: [..., C]; its length does not matter.
    Returns: float32 [..., N].
    """
    return normalize(_correlation(patches, other))


def spatial_weights(similarity: Array) -> tuple[Array, Array]:
    """Each patch's sum of cosines with all patches of the other image (Eq. 3.8, SC).

    Args:
      similarity: float32 [..., N, M], cosines of query and gallery patches. The
        official code sums distances: give it 1 - cosine, and the patches that are
        unlike the other image weigh most.
    Returns: weights of the query [..., N] and of the gallery [..., M], float32.
    """
    sums = similarity.sum(-1), similarity.sum(-2)
    return tuple(normalize(jax.nn.relu(x)) for x in sums)


def landmark_density(keypoints: Array, grid: tuple[int, int]) -> Array:
    """Share of the keypoints inside of each patch (Sec. 3.1.5, LMK).

    Args:
      keypoints: [..., K, 2], (x, y) as fractions of the image; those outside of it do
        not count.
      grid: (rows, columns) of patches.
    Returns: float32 [..., rows * columns], without gradient.
    """
    rows, columns = grid
    x = jnp.floor(keypoints[..., 0] * columns)
    y = jnp.floor(keypoints[..., 1] * rows)
    inside = (x >= 0) & (x < columns) & (y >= 0) & (y < rows)
    cell = jnp.where(inside, y * columns + x, -1.0).astype(jnp.int32)
    return normalize(jax.nn.one_hot(cell, rows * columns).sum(-2))


def pair_weights(
    kind: str,
    query: Features,
    gallery: Features,
    similarity: Array,
    *,
    grid: Grids | None = None,
) -> tuple[Array, Array]:
    """Weights of both sides of pairs by one of the thesis' rules.

    Args:
      kind: `uniform`, `apc`, `cc`, `sc`, `landmarks` (Sec. 3.1.5); and as in the
        official code `sc_distance`, which sums distances in place of cosines,
        `apc_joint`, APC in which both sides together sum to 1, and `apc_unit`,
        `cc_unit`, `apc_joint_unit`: what sums up the other image is the same (the mean
        of its patches as they are, its embedding), but unit patches correlate with it.
      query, gallery: their leading axes fit together by broadcasting.
      similarity: float32 [..., N, M], cosines of their patches.
      grid: of the patches, for `landmarks`.
    Returns: float32 [..., N] and [..., M].
    Raises: ValueError: unknown kind; what it needs is missing or of another width.
    """
    check_option("pair_weights", "weighting", kind, WEIGHTINGS)
    sides = query, gallery
    if kind == "uniform":
        return uniform_weights(query.patches), uniform_weights(gallery.patches)
    if kind == "landmarks":
        return _densities(sides, grid)
    if kind in ("sc", "sc_distance"):
        return spatial_weights(similarity if kind == "sc" else 1.0 - similarity)
    rule = kind.removesuffix("_unit")
    others = [x.embeddings if rule == "cc" else _center(x) for x in (gallery, query)]
    for features, other in zip(sides, others, strict=True):
        if features.patches.shape[-1] != other.shape[-1]:
            raise ValueError(
                f"pair_weights: {kind!r} needs patches as wide as what they correlate "
                f"with; got {features.patches.shape[-1]} and {other.shape[-1]} "
                "channels; choose another weighting."
            )
    patches = [unit(x.patches) if rule != kind else x.patches for x in sides]
    raw = [_correlation(*both) for both in zip(patches, others, strict=True)]
    if rule != "apc_joint":
        return normalize(raw[0]), normalize(raw[1])
    lead = jnp.broadcast_shapes(*(x.shape[:-1] for x in raw))
    raw = [jnp.broadcast_to(x, (*lead, x.shape[-1])) for x in raw]
    joint = normalize(jnp.concatenate(raw, -1))
    return tuple(jnp.split(joint, [raw[0].shape[-1]], axis=-1))


def _densities(
    sides: tuple[Features, Features], grid: Grids | None
) -> tuple[Array, Array]:
    """Landmark densities of both sides."""
    if grid is None or any(x.keypoints is None for x in sides):
        raise ValueError(
            "pair_weights: 'landmarks' needs the keypoints of both sides and the grid "
            "of their patches; got none; give them, or choose another weighting."
        )
    grids = grid if isinstance(grid[0], tuple) else (grid, grid)
    for features, (rows, columns) in zip(sides, grids, strict=True):
        if features.patches.shape[-2] != rows * columns:
            raise ValueError(
                f"pair_weights: the grid {rows} x {columns} must hold all patches of "
                f"an image; got {features.patches.shape[-2]}; correct the grid."
            )
    both = zip(sides, grids, strict=True)
    return tuple(landmark_density(x.keypoints, one) for x, one in both)


def _center(features: Features) -> Array:
    """The mean of an image's patches (Eq. 3.7)."""
    return features.patches.astype(jnp.float32).mean(-2)


def _correlation(patches: Array, other: Array) -> Array:
    # The length of the other vector cancels; at 1 its products cannot overflow.
    patches, other = patches.astype(jnp.float32), unit(other)
    exact = jax.lax.Precision.HIGHEST
    return jax.nn.relu(jnp.einsum("...nc,...c->...n", patches, other, precision=exact))
