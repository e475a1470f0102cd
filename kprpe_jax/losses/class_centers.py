"""Margin softmax over class centres that are sharded on the mesh's `class` axis.

Each device holds its share of the centres and computes only the logits of its share.
The softmax needs a maximum and a sum over the shards; nothing else crosses. With
sampling (PartialFC) a step computes the logits of part of the classes only.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh, PartitionSpec

from kprpe_jax.layers.unit import unit
from kprpe_jax.losses.class_sampling import (
    SampledClasses,
    num_slots,
    sample_classes,
)
from kprpe_jax.losses.margin import Margin, clip_cosine, margin_logits
from kprpe_jax.training.mesh import AXES, BATCH_SPEC

CENTER_MULTIPLE = 256


class MarginSoftmax(NamedTuple):
    """Result of `margin_softmax`, means over the labelled samples of the global batch.

    Attributes:
      loss: float32 scalar, 0 where no sample is labelled.
      accuracy: float32 scalar, share whose true class has the largest cosine, among the
        sampled classes.
      overflow: int32 scalar, classes of the batch beyond what the sampling rate keeps,
        over all shards; they are kept all the same.
    """

    loss: Array
    accuracy: Array
    overflow: Array


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
    quality: Array | None = None,
    sample_rate: float = 1.0,
    noise: Array | None = None,
    probability_floor: float = 0.0,
) -> MarginSoftmax:
    """Softmax cross entropy of cosine logits with a margin on the true class.

    The batch is sharded over all mesh axes; within a class group it is gathered, so a
    device computes [B / (data * fsdp), num_classes / class] logits. Differentiable
    with respect to embeddings and centres; equal to the unsharded loss.

    With a sampling rate below 1 each shard keeps that share of its classes: all classes
    of the global batch, and of the others those with the largest noise. The centres
    that are left out get a zero gradient.

    Args:
      embeddings: [B, D], B divisible by the number of devices.
      centers: float32 [R, D], sharded as P("class"); R = padded_classes(num_classes),
        or another number of rows that the class axis divides.
      labels: int32 [B]; those outside [0, num_classes), such as -1, are ignored.
      margin: from `make_margin`.
      num_classes: C.
      mesh: with axes data, fsdp and class.
      quality: float32 [B] in [-1, 1], from `image_quality`; for AdaFace only.
      sample_rate: in (0, 1].
      noise: float32 [R] uniform in [0, 1), fresh at every step; only for sampling.
      probability_floor: 1e-30 as in the official PartialFC, 0 otherwise: the loss of a
        sample is at most -log of it, its gradient is not; an ignored label then counts
        as one of probability 0 and takes part in the means.
    Returns: `MarginSoftmax`.
    Raises: ValueError: the class axis does not divide the rows of `centers`, or these
      are fewer than the classes; the rate is out of range or comes without noise; the
      quality is missing or of no use.
    """
    rows, shards = centers.shape[0], mesh.shape["class"]
    if rows < num_classes or rows % shards:
        raise ValueError(
            f"margin_softmax: the class axis of the mesh ({shards}) must divide the "
            f"rows of the centres, at least one per class ({num_classes}); got {rows} "
            f"rows; make padded_classes of them and set mesh.class to a divisor of "
            f"{CENTER_MULTIPLE}."
        )
    if not 0 < sample_rate <= 1 or (
        sample_rate < 1 and (noise is None or noise.shape != (rows,))
    ):
        raise ValueError(
            "margin_softmax: sample_rate must lie in (0, 1] and below 1 needs a noise "
            f"value for each row of the centres; got {sample_rate} and noise of shape "
            f"{None if noise is None else noise.shape}; draw jax.random.uniform(rng, "
            f"({rows},))."
        )
    if margin.uses_quality != (quality is not None):
        raise ValueError(
            "margin_softmax: AdaFace needs the quality of each image and other margins "
            f"none; got {'none' if quality is None else quality.shape}; see "
            "`image_quality`."
        )
    if quality is None:
        quality = jnp.zeros(labels.shape, jnp.float32)
    sharded = jax.shard_map(
        partial(
            _margin_softmax,
            margin=margin,
            num_classes=num_classes,
            sample_rate=sample_rate,
            probability_floor=probability_floor,
        ),
        mesh=mesh,
        in_specs=(
            BATCH_SPEC,
            PartitionSpec("class"),
            BATCH_SPEC,
            BATCH_SPEC,
            PartitionSpec("class"),
        ),
        out_specs=MarginSoftmax(*[PartitionSpec()] * 3),
    )
    noise = jnp.zeros(rows) if sample_rate == 1 else noise
    return sharded(embeddings, centers, labels, quality, noise)


def _margin_softmax(
    embeddings: Array,
    centers: Array,
    labels: Array,
    quality: Array,
    noise: Array,
    *,
    margin: Margin,
    num_classes: int,
    sample_rate: float,
    probability_floor: float,
) -> MarginSoftmax:
    rows = centers.shape[0]
    classes = jax.lax.axis_index("class") * rows + jnp.arange(rows)
    exists = classes < num_classes
    overflow = jnp.int32(0)
    if sample_rate < 1:
        sampled = _sample(noise, labels, num_classes, sample_rate)
        centers, classes = centers[sampled.rows], classes[sampled.rows]
        exists = exists[sampled.rows] & sampled.kept
        overflow = jax.lax.psum(sampled.overflow, "class")

    gather = partial(jax.lax.all_gather, axis_name="class", tiled=True)
    embeddings, labels, quality = map(gather, (embeddings, labels, quality))
    cosine = jnp.matmul(
        unit(embeddings), unit(centers).T, precision=jax.lax.Precision.HIGHEST
    )
    cosine = clip_cosine(cosine)  # [b, classes here]
    is_target = exists & (classes == labels[:, None])

    logits = margin_logits(cosine, is_target, margin, quality[:, None])
    logits = jnp.where(exists, logits, -jnp.inf)
    peak = jax.lax.pmax(jax.lax.stop_gradient(logits).max(-1), "class")
    total = jax.lax.psum(jnp.exp(logits - peak[:, None]).sum(-1), "class")
    target = jax.lax.psum(jnp.where(is_target, logits, 0).sum(-1), "class")
    loss = jnp.log(total) + peak - target

    plain = jax.lax.stop_gradient(cosine)
    best = jax.lax.pmax(jnp.where(exists, plain, -2).max(-1), "class")
    own = jax.lax.psum(jnp.where(is_target, plain, 0).sum(-1), "class")
    valid = counted = (labels >= 0) & (labels < num_classes)
    if probability_floor > 0:
        most = -math.log(probability_floor)
        shown = jnp.where(valid, jnp.minimum(loss, most), most)
        loss = loss + jax.lax.stop_gradient(shown - loss)
        counted = jnp.ones_like(valid)

    # Within a class group every device now holds the same rows: all of the sums below
    # are equal over `class`, and pmean tells the compiler so.
    def total_over_batch(x: Array, which: Array) -> Array:
        local = jnp.where(which, x, 0.0).sum()
        return jax.lax.pmean(jax.lax.psum(local, ("data", "fsdp")), "class")

    count = jnp.maximum(total_over_batch(jnp.ones_like(loss), counted), 1.0)
    right = (own >= best).astype(jnp.float32)
    return MarginSoftmax(
        loss=total_over_batch(loss, counted) / count,
        accuracy=total_over_batch(right, valid) / count,
        overflow=overflow,
    )


def _sample(
    noise: Array, labels: Array, num_classes: int, sample_rate: float
) -> SampledClasses:
    """Choose among this shard's rows, for the global batch."""
    rows, shards = len(noise), jax.lax.axis_size("class")
    labels = jax.lax.all_gather(labels, AXES, tiled=True)
    # Equal on all devices already; pmax tells the compiler so. Thereby the gradient of
    # the chosen centres is summed over `data` and `fsdp`, not that of all centres.
    labels = jax.lax.pmax(labels, ("data", "fsdp"))
    shard = jax.lax.axis_index("class")
    here = [min(max(num_classes - n * rows, 0), rows) for n in range(shards)]
    keep = jnp.array([int(sample_rate * n) for n in here])[shard]
    noise = jnp.where(jnp.arange(rows) < jnp.array(here)[shard], noise, -1.0)
    slots = num_slots(rows, sample_rate, len(labels))
    return sample_classes(noise, labels - shard * rows, keep, slots)
