"""Type `gait_search`: badly placed silhouettes, wrong, missing and swapped joints.

Source: KP-RPE, Sec. 5 (rank-n, mAP, mINP); the conditions are ours.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from kprpe_jax.data.gait import GaitSplit, WholeSequences
from kprpe_jax.data.keypoints import perturb_keypoints
from kprpe_jax.evaluation.embedding import map_rows
from kprpe_jax.evaluation.evaluators import Evaluator
from kprpe_jax.evaluation.gait import gait_metrics, part_distances
from kprpe_jax.evaluation.misaligned import check_severities, misalign

Sequences = dict[str, Array]  # silhouettes float32 in [0, 1] and masks, as `data.gait`
# (params, collections, sequences) -> embeddings float32 [B, P, D]
EmbedSequences = Callable[[Any, Any, Sequences], Array]


class GaitCondition(NamedTuple):
    """How test sequences are treated; numbers, so that all share one program.

    Attributes:
      severity: of `misalign`, sampled once for each sequence.
      alpha: of the joints' error, Eq. 12 sampled anew for each coordinate.
      missing: probability that a joint is missing.
      swapped: 1 = joints are swapped between the sequences of a batch, which shows how
        much a network relies on them; else 0.
    """

    severity: float = 0.0
    alpha: float = 0.0
    missing: float = 0.0
    swapped: float = 0.0


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
    # Half a batch away, as rows of one person stand together.
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
            f"lengths must be positive and rise, such as (16, 32); got {tuple(lengths)}"
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


class GaitData:
    """What a run says of its data and its network to every evaluator of gait.

    Args:
      embed: the network.
      open_split: name -> sequences.
      uses_joints: whether the network reads joints.
      batch_size: sequences of the global batch.
    """

    def __init__(
        self,
        embed: EmbedSequences,
        open_split: Callable[[str], GaitSplit],
        *,
        uses_joints: bool,
        batch_size: int,
    ):
        self.uses_joints = uses_joints
        self._embed, self._open, self._batch_size = embed, open_split, batch_size
        self._embedders: dict[Any, Any] = {}

    def embedder(self, split: str, lengths: tuple[int, ...]) -> tuple[GaitSplit, Any]:
        """A split's sequences, and `make_embedder` of them: compiled once for all."""
        key = split, lengths
        if key not in self._embedders:
            sequences = self._open(split)
            run = make_embedder(
                self._embed, sequences, lengths=lengths, batch_size=self._batch_size
            )
            self._embedders[key] = sequences, run
        return self._embedders[key]


def build(
    data: GaitData,
    *,
    split: str = "test",
    lengths: tuple = (64, 128, 256),
    metric: str = "euclidean",
    severity: float = 0.0,
    alpha: float = 0.0,
    missing: float = 0.0,
    swapped: bool = False,
) -> Evaluator | None:
    """Build the evaluator: every probe searched in all sequences that are none.

    Args:
      data: of the run.
      split: test sequences.
      lengths: of `make_embedder`.
      metric: of `part_distances`.
      severity, alpha, missing, swapped: of `GaitCondition`.
    Returns: function (state, mesh) -> rank_1, rank_5, rank_10, map, minp (shares),
      probes and gallery (numbers; probes without a match are not counted). None for a
      network without joints where the evaluator is about them.
    Raises: ValueError: a severity out of its range; no probe, or no gallery; as
      `make_embedder`.
    """
    check_severities([severity])
    if not data.uses_joints and (alpha or missing or swapped):
        return None
    sequences, embed_all = data.embedder(split, lengths)
    probe, gallery = sequences.probes, ~sequences.probes
    if probe.all() or not probe.any():
        raise ValueError(
            "gait: the test split must have probes and a gallery; got "
            f"{int(probe.sum())} probes of {len(probe)} sequences; import it with its "
            "probes"
        )
    condition = GaitCondition(severity, alpha, missing, float(swapped))

    def evaluate(state: Any, mesh: Mesh) -> dict[str, float]:
        embeddings = embed_all(state.params, state.collections, mesh, condition)
        distances = part_distances(
            embeddings[probe], embeddings[gallery], metric=metric
        )
        labels = sequences.labels
        found = gait_metrics(distances, labels[probe], labels[gallery])
        return {
            "rank_1": found.rank_1,
            "rank_5": found.rank_5,
            "rank_10": found.rank_10,
            "map": found.mean_ap,
            "minp": found.mean_inp,
            "probes": int(probe.sum()) - found.dropped,
            "gallery": int(gallery.sum()),
        }

    return evaluate
