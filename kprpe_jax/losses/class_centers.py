"""Margin softmax over class centres that are sharded on the mesh's `class` axis.

Each device holds its share of the centres and computes only the logits of its share.
The softmax needs a maximum and a sum over the shards; nothing else crosses.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh, PartitionSpec

from kprpe_jax.losses.margin import Margin, clip_cosine, unit
from kprpe_jax.training.mesh import BATCH_SPEC

CENTER_MULTIPLE = 256


class MarginSoftmax(NamedTuple):
    """Result of `margin_softmax`, means over the labelled samples of the global batch.

    Attributes:
      loss: float32 scalar, 0 where no sample is labelled.
      accuracy: float32 scalar, share whose true class has the largest cosine.
    """

    loss: Array
    accuracy: Array


def padded_classes(num_classes: int) -> int:
    """Rows of the centre matrix: `num_classes` rounded up to CENTER_MULTIPLE.

    The shape does not depend on the mesh, so a checkpoint fits any mesh whose class
    axis divides CENTER_MULTIPLE. Rows beyond `num_classes` never enter the softmax.
    """
    return -(-num_classes // CENTER_MULTIPLE) * CENTER_MULTIPLE


def margin_softmax(
    embeddings: Array,
    centers: Array,
    labels: Array,
    *,
    margin: Margin,
    num_classes: int,
    mesh: Mesh,
) -> MarginSoftmax:
    """Softmax cross entropy of cosine logits with a margin on the true class.

    The batch is sharded over all mesh axes; within a class group it is gathered, so a
    device computes [B / (data * fsdp), num_classes / class] logits. Differentiable
    with respect to embeddings and centres; equal to the unsharded loss.

    Args:
      embeddings: [B, D], B divisible by the number of devices.
      centers: float32 [padded_classes(num_classes), D], sharded as P("class").
      labels: int32 [B] in [0, num_classes); -1 = ignored.
      margin: from `make_margin`.
      num_classes: C.
      mesh: with axes data, fsdp and class.
    Returns: `MarginSoftmax`.
    Raises: ValueError: the class axis does not divide the rows of `centers`.
    """
    rows, shards = centers.shape[0], mesh.shape["class"]
    if rows != padded_classes(num_classes) or rows % shards:
        raise ValueError(
            f"margin_softmax: the class axis of the mesh ({shards}) must divide the "
            f"{padded_classes(num_classes)} rows of the centres; got {rows} rows; set "
            f"mesh.class to a divisor of {CENTER_MULTIPLE}."
        )
    sharded = jax.shard_map(
        partial(_margin_softmax, margin=margin, num_classes=num_classes),
        mesh=mesh,
        in_specs=(BATCH_SPEC, PartitionSpec("class"), BATCH_SPEC),
        out_specs=MarginSoftmax(PartitionSpec(), PartitionSpec()),
    )
    return sharded(embeddings, centers, labels)


def _margin_softmax(
    embeddings: Array,
    centers: Array,
    labels: Array,
    *,
    margin: Margin,
    num_classes: int,
) -> MarginSoftmax:
    gather = partial(jax.lax.all_gather, axis_name="class", tiled=True)
    embeddings, labels = gather(embeddings), gather(labels)

    rows = centers.shape[0]
    first = jax.lax.axis_index("class") * rows
    cosine = jnp.matmul(
        unit(embeddings), unit(centers).T, precision=jax.lax.Precision.HIGHEST
    )
    cosine = clip_cosine(cosine)  # [b, rows]
    exists = first + jnp.arange(rows) < num_classes
    is_target = first + jnp.arange(rows) == labels[:, None]

    with_margin = jnp.where(is_target, margin.target_cosine(cosine), cosine)
    logits = jnp.where(exists, margin.scale * with_margin, -jnp.inf)
    peak = jax.lax.pmax(jax.lax.stop_gradient(logits).max(-1), "class")
    total = jax.lax.psum(jnp.exp(logits - peak[:, None]).sum(-1), "class")
    target = jax.lax.psum(jnp.where(is_target, logits, 0).sum(-1), "class")
    loss = jnp.log(total) + peak - target

    plain = jax.lax.stop_gradient(cosine)
    best = jax.lax.pmax(jnp.where(exists, plain, -2).max(-1), "class")
    own = jax.lax.psum(jnp.where(is_target, plain, 0).sum(-1), "class")

    # Within a class group every device now holds the same rows: all of the sums below
    # are equal over `class`, and pmean tells the compiler so.
    valid = labels >= 0

    def total_over_batch(x: Array) -> Array:
        local = jnp.where(valid, x, 0.0).sum()
        return jax.lax.pmean(jax.lax.psum(local, ("data", "fsdp")), "class")

    count = jnp.maximum(total_over_batch(jnp.ones_like(loss)), 1.0)
    return MarginSoftmax(
        loss=total_over_batch(loss) / count,
        accuracy=total_over_batch((own >= best).astype(jnp.float32)) / count,
    )
