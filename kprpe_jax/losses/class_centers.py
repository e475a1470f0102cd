"""Margin softmax over class centers that are sharded on the mesh's `class` axis.

Each device holds its share of the centers and computes only the logits of its share.
The softmax needs a maximum and a sum over the shards; nothing else crosses. With
sampling (PartialFC, `class_sampling`) a step is given part of the centers only.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh, PartitionSpec

from kprpe_jax.core.constraints import auto_axes
from kprpe_jax.core.mesh import BATCH_SPEC
from kprpe_jax.core.unit import unit
from kprpe_jax.losses.curricularface import move_target_mean
from kprpe_jax.losses.margin import Margin, clip_cosine, margin_logits

CENTER_MULTIPLE = 256


class MarginSoftmax(NamedTuple):
    """Result of `margin_softmax`, means over the labeled samples of the global batch.

    Attributes:
      loss: float32 scalar, 0 where no sample is labeled.
      accuracy: float32 scalar, share whose true class has a larger cosine than any
        other of the classes that are given; a tie is a miss.
      target_mean: t of CurricularFace after this batch, float32 scalar; None for other
        margins.
    """

    loss: Array
    accuracy: Array
    target_mean: Array | None = None


def padded_classes(num_classes: int, shards: int = 1) -> int:
    """Rows of the center matrix: `num_classes` rounded up so that shards are equal.

    All class axes that divide CENTER_MULTIPLE need the same rows, so that a checkpoint
    fits any of their meshes; another axis, such as 3 or 512, needs its own multiple.
    Rows beyond `num_classes` never enter the softmax.

    Args:
      num_classes: C >= 1.
      shards: size of the mesh's class axis.
    """
    multiple = math.lcm(CENTER_MULTIPLE, shards)
    return -(-num_classes // multiple) * multiple


def margin_softmax(
    embeddings: Array,
    centers: Array,
    labels: Array,
    *,
    margin: Margin,
    num_classes: int,
    mesh: Mesh,
    quality: Array | None = None,
    target_mean: Array | None = None,
    classes: Array | None = None,
    probability_floor: float = 0.0,
) -> MarginSoftmax:
    """Softmax cross entropy of cosine logits with a margin on the true class.

    The batch is sharded over all mesh axes; within a class group it is gathered, so a
    device computes [B / (data * fsdp), num_classes / class] logits. Differentiable
    with respect to embeddings and centers; equal to the unsharded loss.

    The centers may be a sample of all (PartialFC): the softmax is then over these.

    Args:
      embeddings: [B, D], B divisible by the number of devices.
      centers: float32 [R, D], sharded as P("class"); R = padded_classes(num_classes,
        class axis), or another number of rows that the class axis divides.
      labels: int32 [B]; those outside [0, num_classes), such as -1, are ignored,
        whatever their embedding holds.
      margin: from `make_margin`.
      num_classes: C.
      mesh: with axes data, fsdp and class.
      quality: float32 [B] in [-1, 1], from `image_quality`; for AdaFace only.
      target_mean: t before this batch, float32 scalar, for CurricularFace only; the
        labeled samples of the global batch move it.
      classes: int32 [R], sharded alike: whose center a row is, -1 = none; among
        them every labeled class of the batch (`class_sampling.sample_classes`). None:
        row n is class n.
      probability_floor: 1e-30 as in the official PartialFC, 0 otherwise: the loss of a
        sample is at most -log of it, its gradient is not; an ignored label then counts
        as one of probability 0 and takes part in the means.
    Returns: `MarginSoftmax`.
    Raises: ValueError: shapes that do not belong together, a batch that the devices do
      not divide; the class axis does not divide the rows of `centers`, or these are
      fewer than the classes without a sample, or another number than a sample's; the
      quality, or t, is missing or of no use.
    """
    if (
        embeddings.shape != (*labels.shape, centers.shape[-1])
        or labels.ndim != 1
        or len(labels) % mesh.size
    ):
        raise ValueError(
            "margin_softmax: embeddings must be [B, D], labels [B] and centers [R, D], "
            f"B a multiple of the {mesh.size} devices; got {embeddings.shape}, "
            f"{labels.shape} and {centers.shape}."
        )
    rows, shards = centers.shape[0], mesh.shape["class"]
    if rows % shards or (classes is None and rows < num_classes):
        raise ValueError(
            f"margin_softmax: the class axis of the mesh ({shards}) must divide the "
            f"rows of the centers, at least one per class ({num_classes}); got {rows} "
            f"rows; make padded_classes({num_classes}, {shards}) of them."
        )
    if classes is None:
        classes = jnp.arange(rows)
        classes = jnp.where(classes < num_classes, classes, -1)
    elif classes.shape != (rows,):
        raise ValueError(
            "margin_softmax: classes must name one class for each row of the centers, "
            f"{rows}; got shape {classes.shape}; take both from one sample."
        )
    if margin.uses_quality != (quality is not None):
        raise ValueError(
            "margin_softmax: AdaFace needs the quality of each image and other margins "
            f"none; got {'none' if quality is None else quality.shape}; see "
            "`image_quality`."
        )
    curricular = margin.other_cosine is not None
    if curricular != (target_mean is not None):
        raise ValueError(
            "margin_softmax: CurricularFace needs the running mean of the target "
            "cosines and other margins none; got "
            f"{'none' if target_mean is None else 'one'}; see `initial_target_mean`."
        )
    if quality is None:
        quality = jnp.zeros(labels.shape, jnp.float32)
    if target_mean is None:
        target_mean = jnp.float32(0.0)
    sharded = jax.shard_map(
        partial(
            _margin_softmax,
            margin=margin,
            num_classes=num_classes,
            probability_floor=probability_floor,
        ),
        mesh=auto_axes(mesh),
        in_specs=(
            BATCH_SPEC,
            PartitionSpec("class"),
            BATCH_SPEC,
            BATCH_SPEC,
            PartitionSpec("class"),
            PartitionSpec(),
        ),
        out_specs=MarginSoftmax(*[PartitionSpec()] * 3),
    )
    result = sharded(embeddings, centers, labels, quality, classes, target_mean)
    return result if curricular else result._replace(target_mean=None)


def _margin_softmax(
    embeddings: Array,
    centers: Array,
    labels: Array,
    quality: Array,
    classes: Array,
    target_mean: Array,
    *,
    margin: Margin,
    num_classes: int,
    probability_floor: float,
) -> MarginSoftmax:
    exists = classes >= 0
    gather = partial(jax.lax.all_gather, axis_name="class", tiled=True)
    embeddings, labels, quality = map(gather, (embeddings, labels, quality))
    valid = counted = (labels >= 0) & (labels < num_classes)
    if probability_floor > 0:
        counted = jnp.ones_like(valid)
    # What does not count is nothing: 0 times NaN would be NaN in the gradient.
    embeddings = jnp.where(counted[:, None], embeddings, 0)
    cosine = jnp.matmul(
        unit(embeddings), unit(centers).T, precision=jax.lax.Precision.HIGHEST
    )
    cosine = clip_cosine(cosine)  # [b, classes here]
    is_target = exists & (classes == labels[:, None])
    plain = jax.lax.stop_gradient(cosine)
    own = jax.lax.psum(jnp.where(is_target, plain, 0).sum(-1), "class")

    # Within a class group every device now holds the same rows: all of the sums below
    # are equal over `class`, and pmean tells the compiler so.
    def total_over_batch(x: Array, which: Array) -> Array:
        local = jnp.where(which, x, 0.0).sum()
        return jax.lax.pmean(jax.lax.psum(local, ("data", "fsdp")), "class")

    if margin.other_cosine is not None:
        count = total_over_batch(jnp.ones_like(own), valid)
        target_mean = move_target_mean(target_mean, total_over_batch(own, valid), count)

    logits = margin_logits(
        cosine,
        is_target,
        margin,
        quality[:, None],
        target=own[:, None],
        target_mean=target_mean,
    )
    logits = jnp.where(exists, logits, -jnp.inf)
    peak = jax.lax.pmax(jax.lax.stop_gradient(logits).max(-1), "class")
    total = jax.lax.psum(jnp.exp(logits - peak[:, None]).sum(-1), "class")
    target = jax.lax.psum(jnp.where(is_target, logits, 0).sum(-1), "class")
    loss = jnp.log(total) + peak - target

    others = jnp.where(exists & ~is_target, plain, -2)
    best = jax.lax.pmax(others.max(-1), "class")
    if probability_floor > 0:
        most = -math.log(probability_floor)
        shown = jnp.where(valid, jnp.minimum(loss, most), most)
        loss = loss + jax.lax.stop_gradient(shown - loss)

    count = jnp.maximum(total_over_batch(jnp.ones_like(loss), counted), 1.0)
    right = (own > best).astype(jnp.float32)
    return MarginSoftmax(
        loss=total_over_batch(loss, counted) / count,
        accuracy=total_over_batch(right, valid) / count,
        target_mean=target_mean,
    )
