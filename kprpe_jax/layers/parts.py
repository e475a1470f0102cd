"""Gait sequences to embeddings of body parts: pooling over time and strips, heads."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from kprpe_jax.layers.batch_norm import BatchNorm

_KERNEL = nn.initializers.lecun_normal(in_axis=-2, out_axis=-1, batch_axis=0)


class GaitOutput(NamedTuple):
    """Of a batch of sequences.

    Attributes:
      embeddings: float32 [B, P, D], not normalized; what sequences are compared by.
      logits: float32 [B, P, num_classes], cosines to class weights; None of a network
        that learns from triplets alone.
    """

    embeddings: Array
    logits: Array | None


def check_silhouettes(
    network: str, silhouettes: Array, mask: Array | None, image_size: tuple[int, int]
) -> Array:
    """Check silhouettes and their mask; returns the mask, all True where it is None.

    Args:
      network: named in the error.
      silhouettes: [B, T, H, W].
      mask: bool [B, T], True = valid frame; None = all.
      image_size: (H, W).
    Raises: ValueError: no frame, or sizes that do not fit.
    """
    shape, (height, width) = silhouettes.shape, image_size
    if len(shape) != 4 or shape[2:] != (height, width) or not shape[1]:
        raise ValueError(
            f"{network}: silhouettes must be [B, T, {height}, {width}] with T at "
            f"least 1; got {shape}; resize all frames to one size and leave out "
            "sequences without frames."
        )
    if mask is None:
        return jnp.ones(shape[:2], bool)
    if mask.shape != shape[:2]:
        raise ValueError(
            f"{network}: mask must be {shape[:2]}, one value per frame; got "
            f"{mask.shape}."
        )
    return mask


def set_pooling(maps: Array, mask: Array) -> Array:
    """Maximum over the valid frames, whatever their order.

    Source: Chao et al., GaitSet, 2019, Sec. 3.2.
    Args:
      maps: [B, T, h, w, C].
      mask: bool [B, T], True = valid.
    Returns: [B, h, w, C]; 0 for a sequence without valid frame.
    """
    seen = mask[:, :, None, None, None]
    highest = _highest(jnp.where(seen, maps, -jnp.inf), 1)
    return jnp.where(seen.any(1), highest, 0.0)


def horizontal_pyramid(maps: Array, bins: tuple[int, ...]) -> Array:
    """Mean plus maximum of horizontal strips.

    Source: Fu et al., Horizontal pyramid matching, 2019, as GaitSet uses it.
    Args:
      maps: [B, h, w, C].
      bins: strips of each level; each divides h.
    Returns: [B, sum(bins), C], level by level from top to bottom.
    Raises: ValueError: a level that does not divide the rows.
    """
    batch, rows, _, width = maps.shape
    if any(rows % count for count in bins):
        raise ValueError(
            f"horizontal_pyramid: every level must divide the {rows} rows of the map; "
            f"got {tuple(bins)}; change bins or the size of the map."
        )
    levels = [maps.reshape(batch, count, -1, width) for count in bins]
    return jnp.concatenate([x.mean(2) + _highest(x, 2) for x in levels], axis=1)


class PartHeads(nn.Module):
    """Per part a linear layer; for training a batch norm and class cosines (BNNeck).

    Attributes:
      part_dim: D.
      num_classes: people of the training set; 0 = no norm and no cosines.
    """

    part_dim: int
    num_classes: int = 0

    @nn.compact
    def __call__(self, parts: Array, *, train: bool) -> GaitOutput:
        """Embeddings and logits.

        Args:
          parts: float32 [B, P, C].
        Returns: `GaitOutput`; embeddings are before the norm, as sequences are
          compared.
        """
        batch, count, width = parts.shape
        kernel = self.param("kernel", _KERNEL, (count, width, self.part_dim))
        embeddings = jnp.einsum("bpc,pcd->bpd", parts, kernel)
        if not self.num_classes:
            return GaitOutput(embeddings, None)
        shape = (count, self.part_dim, self.num_classes)
        classes = self.param("classes", _KERNEL, shape)
        flat = embeddings.swapaxes(1, 2).reshape(batch, -1)  # as official norms store
        normed = BatchNorm(name="norm")(flat, train=train)
        normed = normed.reshape(batch, self.part_dim, count).swapaxes(1, 2)
        normed = _unit(normed, -1)
        logits = jnp.einsum("bpd,pdk->bpk", normed, _unit(classes, 1))
        return GaitOutput(embeddings, logits)


def _highest(x: Array, axis: int) -> Array:
    """Maximum along an axis; the gradient goes to the first of equal values.

    The gradient of `max` asks where x equals the result. Where a compiler computes x
    twice, rounded differently, that may be nowhere: 0 / 0.
    """
    first = jnp.expand_dims(x.argmax(axis), axis)
    places = jnp.arange(x.shape[axis]).reshape(-1, *[1] * (x.ndim - axis - 1))
    return jnp.where(places == first, x, 0.0).sum(axis)


def _unit(x: Array, axis: int) -> Array:
    """x / |x|; 0 with gradient 0 where x is 0."""
    square = jnp.square(x).sum(axis, keepdims=True)
    return x * jax.lax.rsqrt(jnp.where(square > 1e-24, square, jnp.inf))
