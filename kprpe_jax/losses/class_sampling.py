"""Which class centres of a shard take part in a step (PartialFC).

Source: PartialFC (An et al., CVPR 2022), Sec. 3: all classes of the batch, and a
random part of the others.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array


class SampledClasses(NamedTuple):
    """A choice of rows, in slots whose number never changes.

    Attributes:
      rows: int32 [S], ascending, distinct.
      kept: bool [S]; the others only fill their slots.
      overflow: int32 scalar, classes of the batch beyond the number to keep; they are
        kept in addition, and no other class is.
    """

    rows: Array
    kept: Array
    overflow: Array


def num_slots(rows: int, sample_rate: float, batch: int) -> int:
    """Slots that always suffice: for the sample, and for every class of a batch."""
    return max(int(sample_rate * rows), min(batch, rows))


def sample_classes(
    noise: Array, labels: Array, keep: Array, slots: int
) -> SampledClasses:
    """Keep the classes of the batch, then those with the largest noise.

    Args:
      noise: float32 [rows] in [0, 1); a row at -1 comes last.
      labels: int32 [B], rows of this shard; values outside [0, rows) are not here.
      keep: int32 scalar, how many classes to keep.
      slots: at least `keep` and the number of distinct labels here, at most rows.
    """
    rows = len(noise)
    here = (labels >= 0) & (labels < rows)
    positive = jnp.zeros(rows, bool)
    positive = positive.at[jnp.where(here, labels, rows)].set(True, mode="drop")
    count = positive.sum()
    _, chosen = jax.lax.top_k(jnp.where(positive, 2.0, noise), slots)
    kept = jnp.arange(slots) < jnp.maximum(keep, count)
    order = jnp.argsort(chosen)  # ascending rows are read and added to in one sweep
    overflow = jnp.maximum(count - keep, 0)
    return SampledClasses(chosen[order], kept[order], overflow)
