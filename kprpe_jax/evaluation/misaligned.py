"""Verification of faces that lie worse and worse in their images.

Source: KP-RPE, Sec. 4.2 (aligned and unaligned test sets), Eq. 12 and Fig. 6 (error of
the keypoints); the distortion is ours.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from kprpe_jax.data.faces import FaceRows
from kprpe_jax.data.keypoints import perturb_keypoints
from kprpe_jax.evaluation.conditions import Condition, Evaluator, check_swapping
from kprpe_jax.evaluation.embedding import Embed, map_rows, with_mirror
from kprpe_jax.evaluation.pairs import Pairs
from kprpe_jax.evaluation.roc import resolved_rates, roc_curve, tar_at_far
from kprpe_jax.evaluation.scores import pair_distance
from kprpe_jax.evaluation.verification import fold_accuracy
from kprpe_jax.geometry import affine, sampling


def misalign(
    rng: Array, images: Array, keypoints: Array, severity: Array
) -> tuple[Array, Array]:
    """Turn, scale and shift faces about their center, as poor alignment does.

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


def check_severities(severities: Sequence[float]) -> None:
    """Check that `misalign` neither mirrors nor loses a face.

    Raises: ValueError: a severity outside of [0, 4): at 4 a scale may be 0.
    """
    for severity in severities:
        if not 0 <= severity < 4:
            raise ValueError(
                "config.evals.severities must lie in [0, 4), where scales of 1 - 0.25 "
                f"S are positive; got {severity}."
            )


def face_conditions(
    severities: Sequence[float], alphas: Sequence[float], *, reads_keypoints: bool
) -> dict[str, dict[str, Condition]]:
    """What faces are verified under.

    Args:
      severities: of `misalign`.
      alphas: keypoint errors, Eq. 12; () = none are tried.
      reads_keypoints: whether the network does; else those conditions are left out
        that change nothing but keypoints.
    Returns: evaluator -> {name: condition}: `aligned`; `misaligned_S` for each severity
      S; `swapped`, another face's keypoints at severity 1; over the keypoint errors
      `aligned_noise` (Fig. 6) and, at severity 1, `noise`, literally as Eq. 12 and as
      random noise.
    Raises: ValueError: as `check_severities`.
    """
    check_severities(severities)
    conditions = {"aligned": {"aligned": Condition()}}
    for severity in severities:
        name = f"misaligned_{severity:g}"
        conditions[name] = {name: Condition(severity=severity)}
    if not reads_keypoints:
        return conditions
    swapped = Condition(severity=1.0, keypoints="swapped")
    conditions["swapped"] = {"swapped": swapped}
    for name, severity in (("aligned_noise", 0.0), ("noise", 1.0)):
        conditions[name] = {
            f"{noise}_{alpha:g}": Condition(severity, alpha, noise)
            for noise in ("uniform", "scale")
            for alpha in alphas
        }
    return {name: group for name, group in conditions.items() if group}


def make_evaluators(
    embed: Embed,
    source: FaceRows,
    pairs: Pairs,
    conditions: dict[str, dict[str, Condition]],
    *,
    batch_size: int,
    mirror: str = "sum",
) -> dict[str, Evaluator]:
    """Build evaluators of pairs of faces under conditions, such as `face_conditions`.

    How a row is misaligned depends on the row and the batch size alone, so every
    network and every mesh sees the same pairs. Conditions that differ only in their
    numbers share one compiled program.

    Args:
      embed: the network.
      source: decoded rows.
      pairs: rows to compare; only these are embedded.
      conditions: evaluator -> {name: condition}.
      batch_size: rows of the global batch; the last one is padded.
      mirror: of `with_mirror`.
    Returns: name -> function (state, mesh) -> of a single condition the accuracy over
      the folds of the pairs, its standard deviation over them and, where there are 100
      impostor pairs, TAR at FAR 1e-2, of several {name: accuracy}; and the number of
      pairs.
    Raises: ValueError: as `check_swapping`.
    """
    check_swapping(conditions, batch_size)
    rows = np.unique(np.concatenate([pairs.first, pairs.second]))
    first, second = (np.searchsorted(rows, s) for s in (pairs.first, pairs.second))
    needed = source.select(rows)

    embed_both = with_mirror(embed, mirror)

    @partial(jax.jit, static_argnames="condition")
    def embed_batch(
        params, collections, batch, index, severity, alpha, *, condition: Condition
    ):
        rng = jax.random.fold_in(jax.random.key(0), index)
        images = batch["image"].astype(jnp.float32) / 127.5 - 1
        images, keypoints = misalign(rng, images, batch["keypoints"], severity)
        if condition.keypoints == "swapped":
            keypoints = jnp.roll(keypoints, 1, axis=0)
        keypoints = perturb_keypoints(
            jax.random.fold_in(rng, 1), keypoints, alpha=alpha, noise=condition.noise
        )
        return embed_both(params, collections, images, keypoints)

    def verify(condition: Condition, state: Any, mesh: Mesh) -> dict[str, float]:
        embeddings = map_rows(
            lambda batch, index: embed_batch(
                state.params,
                state.collections,
                batch,
                index,
                jnp.float32(condition.severity),
                jnp.float32(condition.alpha),
                condition=condition._replace(severity=0.0, alpha=0.0),
            ),
            needed,
            batch_size=batch_size,
            mesh=mesh,
        )
        distance = np.asarray(pair_distance(embeddings[first], embeddings[second]))
        folds = fold_accuracy(distance, pairs.same, num_folds=pairs.num_folds)
        numbers = {"accuracy": folds.mean, "std": folds.std}
        if fars := resolved_rates([1e-2], (~pairs.same).sum()):
            tar = tar_at_far(roc_curve(-distance, pairs.same), fars)
            numbers["tar_at_far_1e-2"] = float(tar.tar[0])
        return numbers

    def evaluate(
        group: dict[str, Condition], state: Any, mesh: Mesh
    ) -> dict[str, float]:
        found = {name: verify(group[name], state, mesh) for name in group}
        if len(group) == 1:
            (numbers,) = found.values()
        else:
            numbers = {name: result["accuracy"] for name, result in found.items()}
        return {**numbers, "pairs": len(pairs.same)}

    return {name: partial(evaluate, group) for name, group in conditions.items()}
