"""Baselines of set fusion: embeddings [B, N, D] and a mask to one embedding per set.

Each is a weighted sum over the images whose weights do not depend on the other images'
content, except `inlier_average` and `ResidualSelfAttention`. Padding has weight 0
whatever it holds. A set without images, or with weights that are all 0, becomes the
zero vector. `weighted` has the same methods for streams.

PFE follows its released code; C-FAN and RSA follow their abstracts and the description
in Cluster and Aggregate. Our choices are marked.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from kprpe_jax.core.unit import unit
from kprpe_jax.fusion import weighted_state
from kprpe_jax.fusion.landmark_score import score_weighted
from kprpe_jax.layers.batch_norm import BatchNorm

SMALLEST_VARIANCE = 1e-6
OUTLIER_SPREADS = 3.0
SMALLEST_SPREAD = 0.01


def average(embeddings: Array, mask: Array) -> Array:
    """Mean of the unit embeddings: every image counts the same.

    Source: the naive average of Cluster and Aggregate, Sec. 2, without the norms.

    Args:
      embeddings: [B, N, D], not normalized.
      mask: bool [B, N].
    Returns: float32 [B, D].
    """
    return _mean(unit(_valid("average", embeddings, mask)), mask)


def inlier_average(embeddings: Array, mask: Array) -> Array:
    """Mean of the unit embeddings without outliers.

    Source: our reading of "outliers dropped before averaging", as `inliers`.

    Args and Returns: as `average`.
    """
    units = unit(_valid("inlier_average", embeddings, mask))
    return _mean(units, inliers(units, mask))


def inliers(units: Array, mask: Array) -> Array:
    """The images of each set that are no outliers.

    Ours: an outlier's cosine to the mean of the set lies more than OUTLIER_SPREADS
    spreads below the median of these cosines; the spread is 1.4826 times their median
    absolute deviation (Hampel's identifier), and at least SMALLEST_SPREAD. So at least
    half of a set stays, one image or two always, and no gradient flows.

    Args:
      units: float32 [B, N, D], unit vectors, 0 for padding.
      mask: bool [B, N].
    Returns: bool [B, N], False for padding.
    """
    units = jax.lax.stop_gradient(units)
    cosines = jnp.einsum("bnd,bd->bn", units, unit(units.sum(1)))
    known = jnp.where(mask, cosines, jnp.nan)
    median = jnp.nanmedian(known, axis=1, keepdims=True)
    spread = 1.4826 * jnp.nanmedian(jnp.abs(known - median), axis=1, keepdims=True)
    lowest = median - OUTLIER_SPREADS * jnp.maximum(spread, SMALLEST_SPREAD)
    return mask & (cosines >= lowest)


def norm_weighted(embeddings: Array, mask: Array) -> Array:
    """Mean of the embeddings, not normalized: a larger norm weighs more.

    Source: KP-RPE, Eq. 16; the naive average of Cluster and Aggregate, Sec. 2.

    Args and Returns: as `average`.
    """
    return _mean(_valid("norm_weighted", embeddings, mask), mask)


def landmark_score_weighted(
    embeddings: Array,
    mask: Array,
    scores: Array,
    face_scores: Array,
    *,
    least: float = 0.0,
) -> Array:
    """Mean of the unit embeddings weighted by landmark and detection scores.

    Source: KP-RPE, Eq. 17 and 18; divided by N, as there, not by the sum of weights.

    Args:
      embeddings: [B, N, D], not normalized.
      mask: bool [B, N].
      scores: d [B, N] of `landmark_score`.
      face_scores: [B, N] in [0, 1].
      least: smallest quality of an image; 1e-6 in the official code.
    Returns: float32 [B, D].
    Raises: ValueError: sizes do not fit.
    """
    embeddings = _valid(
        "landmark_score_weighted", embeddings, mask, scores, face_scores
    )
    weighted = score_weighted(embeddings, scores, face_scores, least=least)
    return _mean(weighted, mask)


def pfe(embeddings: Array, mask: Array, log_variances: Array) -> Array:
    """Mean of Gaussians: each channel weighted by its precision, 1 / sigma^2.

    Source: Shi and Jain, Probabilistic Face Embeddings (ICCV 2019), as the common code
    for it fuses: weights 1 / sigma^2 over their sum. That is the mean of the product
    of the images' Gaussians.

    Args:
      embeddings: means [B, N, D]; made unit vectors, as there.
      mask: bool [B, N].
      log_variances: [B, N, D] of `UncertaintyHead`, or [B, N, 1].
    Returns: float32 [B, D].
    Raises: ValueError: sizes do not fit.
    """
    means = _valid("pfe", embeddings, mask, log_variances[..., 0])
    return _softmax_mean(unit(means), mask, -log_variances)


def cfan(embeddings: Array, mask: Array, qualities: Array) -> Array:
    """Mean weighted per channel by a softmax of qualities over the images.

    Source: Gong, Shi, Kalka and Jain, Component-wise Feature Aggregation Network (ICB
    2019): a learned quality for each component. That qualities become weights by a
    softmax over the images is our reading.

    Args:
      embeddings: [B, N, D], as they are.
      mask: bool [B, N].
      qualities: [B, N, D] of `QualityHead`, or [B, N, 1].
    Returns: float32 [B, D].
    Raises: ValueError: sizes do not fit.
    """
    embeddings = _valid("cfan", embeddings, mask, qualities[..., 0])
    return _softmax_mean(embeddings, mask, qualities)


class UncertaintyHead(nn.Module):
    """Log variance of every channel of an embedding, for `pfe`.

    Source: the released code of Shi and Jain: linear, norm, ReLU, linear, norm on the
    map that the embedding is made from; after the last norm there is one scale and one
    shift for all channels, 1e-4 and -7 at first, so that training starts with equal
    certainty; 1e-6 is added to the variance. Their norms keep 0.995 of the running
    statistics and have epsilon 1e-3.

    Attributes:
      embed_dim: D.
    """

    embed_dim: int = 512

    @nn.compact
    def __call__(self, maps: Array, mask: Array, *, train: bool) -> Array:
        """Estimate.

        Args:
          maps: [B, N, h, w, C], last feature maps.
          mask: bool [B, N].
          train: use and collect batch statistics.
        Returns: float32 [B, N, D], at least log(1e-6).
        """
        norm = dict(momentum=0.995, epsilon=1e-3)
        x = _flat(maps, mask)
        x = nn.Dense(self.embed_dim, use_bias=False, name="linear1")(x)
        x = nn.relu(BatchNorm(**norm, name="norm1")(x, mask, train=train))
        x = nn.Dense(self.embed_dim, use_bias=False, name="linear2")(x)
        x = BatchNorm(**norm, affine=False, name="norm2")(x, mask, train=train)
        scale = self.param("scale", nn.initializers.constant(1e-4), ())
        shift = self.param("shift", nn.initializers.constant(-7.0), ())
        return jnp.logaddexp(scale * x + shift, jnp.log(SMALLEST_VARIANCE))


class QualityHead(nn.Module):
    """Quality of every channel of an embedding, for `cfan`.

    Source: Gong et al.: a quality for each component, learned on top of a base network
    that stays. One linear layer and a norm, on the map that the embedding is made from,
    is our reading.

    Attributes:
      embed_dim: D.
    """

    embed_dim: int = 512

    @nn.compact
    def __call__(self, maps: Array, mask: Array, *, train: bool) -> Array:
        """Maps [B, N, h, w, C] and bool [B, N] -> float32 [B, N, D]."""
        x = nn.Dense(self.embed_dim, name="linear")(_flat(maps, mask))
        return BatchNorm(name="norm")(x, mask, train=train)


class ResidualSelfAttention(nn.Module):
    """Self-attention over all places of all images, with a residual (RSA).

    Source: Liu et al., Permutation-invariant Feature Restructuring (ICCV 2019): the
    features of a set are restructured by a residual self-attention over all of them,
    to lift what tells people apart and drop what repeats itself; as Cluster and
    Aggregate, Sec. 2 and 4.3, describes it, on feature maps, with memory that grows
    with (N h w)^2. Our reading: one non-local block with softmax and dot products, then
    the mean over the images. Their Gaussian similarity, several blocks, and the
    alignment of probe and gallery that follows are left out. There is no state to
    stream with: of a set in batches, average the results. The factor of the residual
    starts at 0, so that training starts at the plain mean.

    Attributes:
      inner_dim: width of queries and keys.
    """

    inner_dim: int = 256

    def __call__(self, maps: Array, mask: Array) -> Array:
        """Fuse.

        Args:
          maps: [B, N, h, w, C]; embeddings are maps [B, N, 1, 1, D].
          mask: bool [B, N].
        Returns: float32 [B, h, w, C], a map for the head of the backbone, such as
          `IResNet.embed_map`; 0 for a set without images.
        """
        refined = self.refine(maps, mask)
        flat = _mean(refined.reshape(*mask.shape, -1), mask)
        return flat.reshape(mask.shape[0], *maps.shape[2:])

    @nn.compact
    def refine(self, maps: Array, mask: Array) -> Array:
        """Each image's map with what it gets from all; [B, N, h, w, C] both ways."""
        sets, _, height, width, channels = maps.shape
        x = jnp.where(mask[..., None, None, None], maps, 0).astype(jnp.float32)
        places = x.reshape(sets, -1, channels)
        queries = nn.Dense(self.inner_dim, name="query")(places)
        keys = nn.Dense(self.inner_dim, name="key")(places)
        values = nn.Dense(channels, name="value")(places)
        logits = jnp.einsum("bid,bjd->bij", queries, keys) * self.inner_dim**-0.5
        valid = jnp.repeat(mask, height * width, axis=1)[:, None]
        attention = _masked_softmax(logits, valid)
        factor = self.param("factor", nn.initializers.zeros, ())
        return (places + factor * (attention @ values)).reshape(maps.shape)


def _mean(values: Array, mask: Array) -> Array:
    """Mean over the valid images, float32 [B, D]; 0 where there are none."""
    valid = jnp.where(mask[..., None], values, 0)
    return valid.sum(1) / jnp.maximum(mask.sum(1), 1)[:, None]


def _softmax_mean(values: Array, mask: Array, logits: Array) -> Array:
    sizes = dict(embed_dim=values.shape[-1], weight_dim=logits.shape[-1])
    state = weighted_state.init_state(mask.shape[0], **sizes)
    state = weighted_state.update(state, values, logits, mask)
    return weighted_state.finalize(state)


def _masked_softmax(logits: Array, mask: Array) -> Array:
    """Softmax over what is valid; 0 elsewhere, and all 0 where nothing is valid."""
    lowest = jnp.finfo(jnp.float32).min
    return jnp.where(mask, jax.nn.softmax(jnp.where(mask, logits, lowest)), 0.0)


def _flat(maps: Array, mask: Array) -> Array:
    """Maps [B, N, h, w, C] as float32 [B, N, h w C], padding 0."""
    flat = maps.reshape(*maps.shape[:2], -1).astype(jnp.float32)
    return jnp.where(mask[..., None], flat, 0.0)


def _valid(name: str, embeddings: Array, mask: Array, *evidence: Array) -> Array:
    """Embeddings in float32, padding 0; checks that all [B, N] are the same."""
    shapes = [x.shape for x in (mask, *evidence)]
    if embeddings.ndim != 3 or any(s != embeddings.shape[:2] for s in shapes):
        raise ValueError(
            f"{name}: embeddings must be [B, N, D], the mask and what weighs the "
            f"images [B, N]; got {embeddings.shape} and {shapes}; pad all sets to one "
            "N."
        )
    return jnp.where(mask[..., None], embeddings, 0).astype(jnp.float32)
