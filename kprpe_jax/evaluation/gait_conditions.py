"""Gait retrieval under conditions: badly placed silhouettes, wrong and missing joints.

Source: KP-RPE, Sec. 5 (rank-n, mAP, mINP); the conditions are ours.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from kprpe_jax.data.gait import GaitSplit, WholeSequences
from kprpe_jax.data.keypoints import perturb_keypoints
from kprpe_jax.evaluation.conditions import Evaluator
from kprpe_jax.evaluation.embedding import map_rows
from kprpe_jax.evaluation.gait import gait_metrics, part_distances
from kprpe_jax.evaluation.misaligned import check_severities, misalign

Sequences = dict[str, Array]  # silhouettes float32 in [0, 1] and masks, as `data.gait`
# (params, collections, sequences) -> embeddings float32 [B, P, D]
EmbedSequences = Callable[[Any, Any, Sequences], Array]


class GaitCondition(NamedTuple):
    """How test sequences are treated; numbers, so that all share one program.

    Attributes:
      severity: of `misalign`, drawn once for each sequence.
      alpha: of the joints' error, Eq. 12 drawn anew for each coordinate.
      missing: probability that a joint is missing.
      swapped: share of the sequences that get another one's joints: 0 or 1. It shows
        how much a network relies on them.
    """

    severity: float = 0.0
    alpha: float = 0.0
    missing: float = 0.0
    swapped: float = 0.0


def standard_conditions(
    severities: Sequence[float],
    alphas: Sequence[float],
    missing: Sequence[float],
    *,
    uses_joints: bool,
) -> dict[str, GaitCondition]:
    """Evaluators of the study on gait.

    Args:
      severities: of `misaligned_S`.
      alphas: of `noise_A`, on aligned silhouettes.
      missing: of `missing_P`, likewise.
      uses_joints: else there is nothing but `aligned` and `misaligned_S`.
    Returns: evaluator -> condition; with joints also `swapped`.
    Raises: ValueError: as `check_severities`.
    """
    check_severities(severities)
    conditions = {"aligned": GaitCondition()}
    conditions |= {f"misaligned_{s:g}": GaitCondition(severity=s) for s in severities}
    if uses_joints:
        conditions |= {f"noise_{a:g}": GaitCondition(alpha=a) for a in alphas}
        conditions |= {f"missing_{p:g}": GaitCondition(missing=p) for p in missing}
        conditions["swapped"] = GaitCondition(swapped=1.0)
    return conditions


def treat(sequences: Sequences, rng: Array, condition: GaitCondition) -> Sequences:
    """Apply a condition.

    Args:
      sequences: silhouettes float32 [B, T, H, W] in [0, 1], keypoints [B, T, 17, 2],
        joint_mask bool [B, T, 17], frame_mask bool [B, T].
      rng: key.
      condition: of float32 scalars.
    Returns: the same fields.
    """
    place_rng, noise_rng, missing_rng = jax.random.split(rng, 3)
    silhouettes, points = sequences["silhouettes"], sequences["keypoints"]
    known = sequences["joint_mask"]
    # Another person's: rows of one person stand together.
    half = len(points) // 2
    swap = condition.swapped > 0
    points = jnp.where(swap, jnp.roll(points, half, 0), points)
    known = jnp.where(swap, jnp.roll(known, half, 0), known)
    # Frames stand as channels: all of a sequence move alike. Black is -1 there.
    images = 2 * jnp.moveaxis(silhouettes, 1, -1) - 1
    flat = points.reshape(len(points), -1, 2)
    images, flat = misalign(place_rng, images, flat, condition.severity)
    flat = perturb_keypoints(noise_rng, flat, alpha=condition.alpha, noise="uniform")
    found = jax.random.uniform(missing_rng, known.shape) >= condition.missing
    return {
        "silhouettes": (jnp.moveaxis(images, -1, 1) + 1) / 2,
        "keypoints": flat.reshape(points.shape),
        "joint_mask": known & found,
        "frame_mask": sequences["frame_mask"],
    }


def make_embedder(
    embed: EmbedSequences,
    split: GaitSplit,
    *,
    lengths: Sequence[int],
    batch_size: int,
) -> Callable[..., np.ndarray]:
    """Build the function that embeds all sequences of a split.

    A sequence is padded to the next of `lengths`, one compiled program each. How it is
    treated depends on its row and the batch size alone, so every network and every mesh
    sees the same test set.

    Args:
      embed: the network.
      split: N sequences.
      lengths: rising; sequences longer than the last keep that many frames.
      batch_size: sequences of the global batch; the last one is padded.
    Returns: (params, collections, mesh, condition) -> float32 [N, P, D].
    Raises: ValueError: lengths that do not rise.
    """
    if not lengths or any(a >= b for a, b in zip((0, *lengths), lengths, strict=False)):
        raise ValueError(
            "config.evals.lengths must be positive and rise, such as (16, 32); got "
            f"{tuple(lengths)}"
        )
    group = np.minimum(np.searchsorted(lengths, split.frames), len(lengths) - 1)
    groups = {
        length: np.flatnonzero(group == i)
        for i, length in enumerate(lengths)
        if (group == i).any()
    }

    @jax.jit
    def embed_batch(params, collections, batch, index, length, condition):
        rng = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), length), index)
        silhouettes = batch["silhouettes"].astype(jnp.float32) / 255
        sequences = treat({**batch, "silhouettes": silhouettes}, rng, condition)
        return embed(params, collections, sequences)

    def embed_all(params, collections, mesh, condition=None) -> np.ndarray:
        numbers = GaitCondition(*map(np.float32, condition or GaitCondition()))
        parts = [
            map_rows(
                lambda batch, index, length=length: embed_batch(
                    params, collections, batch, index, np.int32(length), numbers
                ),
                WholeSequences(split, rows, num_frames=length),
                batch_size=batch_size,
                mesh=mesh,
            )
            for length, rows in groups.items()
        ]
        order = np.argsort(np.concatenate(list(groups.values())))
        return np.concatenate(parts)[order]

    return embed_all


def make_evaluators(
    embed: EmbedSequences,
    split: GaitSplit,
    conditions: dict[str, GaitCondition],
    *,
    lengths: Sequence[int],
    batch_size: int,
    metric: str = "euclidean",
) -> dict[str, Evaluator]:
    """Build evaluators: every probe searched in all sequences that are none.

    Args:
      embed: the network.
      split: test sequences.
      conditions: evaluator -> condition.
      lengths, batch_size: of `make_embedder`.
      metric: of `part_distances`.
    Returns: evaluator -> function (state, mesh) -> rank_1, rank_5, rank_10, map, minp
      (shares), probes and gallery (numbers; probes without a match are not counted).
    Raises: ValueError: no probe, or no gallery; as `make_embedder`.
    """
    if split.probes.all() or not split.probes.any():
        raise ValueError(
            "gait: the test split must have probes and a gallery; got "
            f"{int(split.probes.sum())} probes of {len(split.probes)} sequences; "
            "import it with its probes"
        )
    embed_all = make_embedder(embed, split, lengths=lengths, batch_size=batch_size)

    def search(condition: GaitCondition, state: Any, mesh: Mesh) -> dict[str, float]:
        embeddings = embed_all(state.params, state.collections, mesh, condition)
        probe, gallery = split.probes, ~split.probes
        distances = part_distances(
            embeddings[probe], embeddings[gallery], metric=metric
        )
        found = gait_metrics(distances, split.labels[probe], split.labels[gallery])
        return {
            "rank_1": found.rank_1,
            "rank_5": found.rank_5,
            "rank_10": found.rank_10,
            "map": found.mean_ap,
            "minp": found.mean_inp,
            "probes": int(probe.sum()) - found.dropped,
            "gallery": int(gallery.sum()),
        }

    return {name: partial(search, condition) for name, condition in conditions.items()}
