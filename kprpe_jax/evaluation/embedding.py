"""The compiled pipeline from rows of a data set to their embeddings."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from kprpe_jax.augmentation.spatial import FACE_MIRROR
from kprpe_jax.core.mesh import put_batch, replicated
from kprpe_jax.data.loader import eval_batches

# (params, collections, images, keypoints) -> embeddings float32 [B, D]
Embed = Callable[[Any, Any, Array, Array], Array]
MIRRORS = ("sum", "concatenate", "none")
_IN_FLIGHT = 2  # batches


def with_mirror(embed: Embed, mirror: str = "sum") -> Embed:
    """Embed faces together with their mirror images.

    Args:
      embed: the network.
      mirror: `sum` of the two raw embeddings, as the official evaluations take it;
        `concatenate` them, [B, 2 D]; `none`.
    Raises: ValueError: unknown `mirror`.
    """
    if mirror not in MIRRORS:
        raise ValueError(f"with_mirror: unknown {mirror!r}; use one of {MIRRORS}.")
    if mirror == "none":
        return embed

    def both(params: Any, collections: Any, images: Array, keypoints: Array) -> Array:
        if keypoints.shape[1] != len(FACE_MIRROR):
            raise ValueError(
                f"with_mirror: keypoints must be [B, {len(FACE_MIRROR)}, 2], so that "
                f"it is known which change sides; got {keypoints.shape}."
            )
        mirrored = keypoints[:, np.array(FACE_MIRROR)] * jnp.array([-1, 1])
        mirrored += jnp.array([1, 0])
        plain = embed(params, collections, images, keypoints)
        flipped = embed(params, collections, images[:, :, ::-1], mirrored)
        if mirror == "sum":
            return plain + flipped
        return jnp.concatenate([plain, flipped], axis=-1)

    return both


@cache
def _gather(mesh: Mesh) -> Callable[[Any], Any]:
    return jax.jit(lambda x: x, out_shardings=replicated(mesh))


def embed_rows(
    embed_batch: Callable[[dict[str, Array], Array], Any],
    source: Sequence,
    *,
    batch_size: int,
    mesh: Mesh,
) -> Any:
    """Embed all rows, each process its share; the last batch is padded.

    Batches are read while the devices work on those before.

    Args:
      embed_batch: compiled; (batch on the devices, its number int32 []) -> [B, D], or
        a tree of arrays [B, ...].
      source: N rows.
      batch_size: rows of the global batch.
      mesh: the devices.
    Returns: float32 [N, D], or that tree of arrays [N, ...], in every process.
    """
    gather = _gather(mesh)
    batches = eval_batches(
        source,
        batch_size=batch_size,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    parts: list[Any] = []
    for index, batch in enumerate(batches):
        parts.append(gather(embed_batch(put_batch(batch, mesh), jnp.int32(index))))
        if index >= _IN_FLIGHT:  # the devices stay busy, and their memory bounded
            parts[index - _IN_FLIGHT] = jax.device_get(parts[index - _IN_FLIGHT])
    return jax.tree.map(
        lambda *part: np.concatenate(part)[: len(source)], *jax.device_get(parts)
    )
