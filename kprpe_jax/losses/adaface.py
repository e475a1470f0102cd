"""AdaFace's image quality: the norm of an embedding against running statistics.

Source: AdaFace (Kim et al., CVPR 2022), Eq. 13-15; m, h and t_alpha as in KP-RPE,
Supp. 2.1. The margin itself is the kind `adaface` of `make_margin`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array


class NormStatistics(NamedTuple):
    """Running mean and standard deviation of embedding norms, float32 scalars."""

    mean: Array
    std: Array


def initial_statistics() -> NormStatistics:
    """The official start: mean 20, deviation 100."""
    return NormStatistics(jnp.float32(20.0), jnp.float32(100.0))


def image_quality(
    embeddings: Array,
    statistics: NormStatistics,
    *,
    counted: Array | None = None,
    concentration: float = 0.333,
    t_alpha: float = 0.01,
) -> tuple[Array, NormStatistics]:
    """Quality of each image, and statistics that know this batch.

    The batch enters the statistics before they are used, as in the official code. Call
    it on the global batch under `jax.jit`: then the statistics are the same on every
    device. In evaluation drop the second result.

    Args:
      embeddings: [B, D], not normalized; no gradient flows through their norms.
      statistics: running ones.
      counted: bool [B], which samples enter the statistics; None = all, as in the
        official code, unlabeled ones too.
      concentration: h.
      t_alpha: weight of this batch.
    Returns: float32 [B] in [-1, 1]; new statistics. A batch with one counted sample
      leaves the deviation as it is, one with none leaves both.
    """
    embeddings = jax.lax.stop_gradient(embeddings).astype(jnp.float32)
    norms = jnp.clip(jnp.sqrt(jnp.square(embeddings).sum(-1)), 1e-3, 100.0)
    counted = jnp.ones(norms.shape, bool) if counted is None else counted
    count = counted.sum()
    mean = jnp.where(counted, norms, 0.0).sum() / jnp.maximum(count, 1)
    squares = jnp.where(counted, jnp.square(norms - mean), 0.0).sum()
    std = jnp.sqrt(squares / jnp.maximum(count - 1, 1))

    def moved(old: Array, new: Array, known: Array) -> Array:
        return jnp.where(known, t_alpha * new + (1.0 - t_alpha) * old, old)

    statistics = NormStatistics(
        moved(statistics.mean, mean, count > 0), moved(statistics.std, std, count > 1)
    )
    score = (norms - statistics.mean) / (statistics.std + 1e-3)
    return jnp.clip(concentration * score, -1.0, 1.0), statistics
