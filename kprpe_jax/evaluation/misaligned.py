"""Verification of faces that lie worse and worse in their images.

Source: KP-RPE, Sec. 4.2 (aligned and unaligned test sets); the distortion is ours.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from kprpe_jax.data.faces import Faces
from kprpe_jax.evaluation.conditions import Evaluator
from kprpe_jax.evaluation.embedding import Embed, embed_rows, with_mirror
from kprpe_jax.evaluation.pairs import Pairs
from kprpe_jax.evaluation.roc import roc_curve, tar_at_far
from kprpe_jax.evaluation.scores import pair_distance
from kprpe_jax.evaluation.verification import fold_accuracy
from kprpe_jax.geometry import affine, sampling


def misalign(
    rng: Array, images: Array, keypoints: Array, severity: Array
) -> tuple[Array, Array]:
    """Turn, scale and shift faces about their centre, as poor alignment does.

    At severity 1: up to 30 degrees, scales of 0.75 to 1.25, shifts of 15 % of the side,
    all uniform. Bilinear, black outside.

    Args:
      rng: key.
      images: float32 [B, H, W, 3] in [-1, 1].
      keypoints: float32 [B, K, 2].
      severity: float32 scalar >= 0; at 0 nothing changes.
    Returns: images and keypoints, moved alike.
    """
    batch, height, width, _ = images.shape
    turn_rng, scale_rng, shift_rng = jax.random.split(rng, 3)
    size = jnp.array([width, height], jnp.float32)
    center = jnp.broadcast_to(size / 2, (batch, 2))
    angle = jax.random.uniform(turn_rng, (batch,), minval=-30, maxval=30)
    scale = jax.random.uniform(scale_rng, (batch, 1), minval=-0.25, maxval=0.25)
    shift = jax.random.uniform(shift_rng, (batch, 2), minval=-0.15, maxval=0.15)
    matrix = affine.compose(
        affine.rotation(severity * angle, center),
        affine.scaling(jnp.tile(1 + severity * scale, 2), center),
        affine.translation(severity * shift * size),
    )
    moved = sampling.warp_affine(
        images, affine.invert(matrix), out_size=(height, width), outside=-1.0
    )
    points = affine.transform_keypoints(
        keypoints, matrix, in_size=(height, width), out_size=(height, width)
    )
    return moved, points


def make_evaluators(
    embed: Embed,
    source: Faces,
    pairs: Pairs,
    severities: Sequence[float],
    *,
    batch_size: int,
) -> dict[str, Evaluator]:
    """Build evaluators: `aligned`, and `misaligned_S` for each severity S.

    An image's embedding is the sum of its own and its mirror image's, as in the
    official protocols. How a row is misaligned depends on the row and the batch size
    alone, so every network and every mesh sees the same pairs.

    Args:
      embed: the network.
      source: decoded rows.
      pairs: rows to compare; only these are embedded.
      severities: of `misalign`.
      batch_size: rows of the global batch; the last one is padded.
    Returns: name -> function (state, mesh) -> 10-fold accuracy, its standard deviation
      over folds, TAR at FAR 1e-2, and the number of pairs.
    """
    rows = np.unique(np.concatenate([pairs.first, pairs.second]))
    first, second = (np.searchsorted(rows, s) for s in (pairs.first, pairs.second))
    needed = source.select(rows)

    embed_both = with_mirror(embed)

    @jax.jit
    def embed_batch(params, collections, batch, index, severity):
        rng = jax.random.fold_in(jax.random.key(0), index)
        images = batch["image"].astype(jnp.float32) / 127.5 - 1
        images, keypoints = misalign(rng, images, batch["keypoints"], severity)
        return embed_both(params, collections, images, keypoints)

    def verify(severity: float, state: Any, mesh: Mesh) -> dict[str, float]:
        embeddings = embed_rows(
            lambda batch, index: embed_batch(
                state.params, state.collections, batch, index, jnp.float32(severity)
            ),
            needed,
            batch_size=batch_size,
            mesh=mesh,
        )
        distance = np.asarray(pair_distance(embeddings[first], embeddings[second]))
        folds = fold_accuracy(distance, pairs.same)
        tar = tar_at_far(roc_curve(-distance, pairs.same), [1e-2])
        return {
            "accuracy": folds.mean,
            "std": folds.std,
            "tar_at_far_1e-2": float(tar.tar[0]),
            "pairs": len(pairs.same),
        }

    names = {"aligned": 0.0, **{f"misaligned_{s:g}": s for s in severities}}
    return {name: partial(verify, severity) for name, severity in names.items()}
