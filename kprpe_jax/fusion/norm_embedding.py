"""Vector of an embedding's norm, a proxy of image quality."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kprpe_jax.layers.batch_norm import BatchNorm

ROUNDINGS = ("floor", "toward_zero")
POSITIONS = ("signed", "from_zero")
CLIP, STEPS = 3, 10  # k and q: how far from the mean, steps per deviation


def quantize_norms(standardized: Array, *, rounding: str = "floor") -> Array:
    """Standardized norms as bounded integers.

    Source: Cluster and Aggregate, Supp. B, Eq. 1 (k = 3, q = 10).

    Args:
      standardized: [...], norms minus their mean, divided by their deviation.
      rounding: `floor` as in the paper; `toward_zero` as in the official code, where 0
        stands for twice as wide a range as any other integer.
    Returns: int32 [...] in [-30, 30].
    Raises: ValueError: unknown rounding.
    """
    if rounding not in ROUNDINGS:
        raise ValueError(
            f"quantize_norms: unknown rounding {rounding!r}; use one of {ROUNDINGS}."
        )
    scaled = STEPS * jnp.clip(standardized, -CLIP, CLIP)
    return (jnp.floor(scaled) if rounding == "floor" else scaled).astype(jnp.int32)


def sinusoid_table(positions: np.ndarray, dim: int) -> np.ndarray:
    """Sines and cosines of positions.

    Source: Cluster and Aggregate, Supp. B, Eq. 2.

    Args:
      positions: int [P].
      dim: c, even.
    Returns: float32 [P, dim]; columns 2 t and 2 t + 1 are sine and cosine of
      position / 10000^(2 t / dim).
    """
    angles = positions[:, None] / 10000.0 ** (np.arange(0, dim, 2) / dim)
    table = np.stack([np.sin(angles), np.cos(angles)], axis=-1)
    return table.reshape(len(positions), dim).astype(np.float32)


class NormEmbedding(nn.Module):
    """Norm of an embedding as a vector.

    Source: Cluster and Aggregate, Supp. B. Mean and deviation of the norms are running
    statistics, in `batch_stats`; no gradient flows to the norms, an integer has none.

    Attributes:
      dim: c, even.
      rounding: of `quantize_norms`.
      positions: `signed`, -30..30, as in the paper; `from_zero`, 0..60, as in the
        official code.
      learned_scale: multiply by a learned scalar, 0.1 at first, as in the official
        code.
    """

    dim: int = 64
    rounding: str = "floor"
    positions: str = "signed"
    learned_scale: bool = False

    @nn.compact
    def __call__(self, embeddings: Array, mask: Array, *, train: bool) -> Array:
        """Embed.

        Args:
          embeddings: [..., D], not normalized.
          mask: bool [...]; the others do not enter the batch statistics.
          train: use and collect batch statistics.
        Returns: float32 [..., dim].
        Raises: ValueError: unknown option, odd dim.
        """
        if self.positions not in POSITIONS or self.dim % 2:
            raise ValueError(
                f"NormEmbedding: positions must be one of {POSITIONS} and dim even; "
                f"got {self.positions!r} and {self.dim}; choose again."
            )
        embeddings = jax.lax.stop_gradient(embeddings).astype(jnp.float32)
        norms = jnp.sqrt(jnp.square(embeddings).sum(-1, keepdims=True))
        norm = BatchNorm(affine=False, name="norm")
        standardized = norm(norms, mask, train=train)[..., 0]
        largest = CLIP * STEPS
        index = quantize_norms(standardized, rounding=self.rounding) + largest
        first = -largest if self.positions == "signed" else 0
        table = sinusoid_table(np.arange(2 * largest + 1) + first, self.dim)
        vectors = jnp.asarray(table)[index]
        if self.learned_scale:
            vectors *= self.param("scale", nn.initializers.constant(0.1), ())
        return vectors
