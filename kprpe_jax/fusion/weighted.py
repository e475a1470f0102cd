"""Baselines with the interface of `ClusterAggregate`, at once or in a stream."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from kprpe_jax.core.unit import unit
from kprpe_jax.fusion import weighted_state as sums
from kprpe_jax.fusion.baselines import (
    QualityHead,
    ResidualSelfAttention,
    UncertaintyHead,
    inliers,
)
from kprpe_jax.fusion.cluster_aggregate import Fused, ImageSets
from kprpe_jax.fusion.weighted_state import WeightedState

METHODS = ("average", "norm_weighted", "inlier_average", "pfe", "cfan", "rsa")
_DROPPED = -1e9  # log weight of an outlier: 0 beside any other


class WeightedFusion(nn.Module):
    """Sets of images to embeddings by a weighted mean, at once or in a stream.

    The functions are those of `ClusterAggregate`. `pfe` and `cfan` estimate their
    weights from the style statistics of an image rather than from its whole last
    feature map, as their sources do, and `rsa` attends over embeddings rather than over
    the places of feature maps: so all train from the same precomputed features, with
    `fusion.baselines` for the full form. `inlier_average` and `rsa` let the images of a
    batch see each other: of a stream, outliers are those of their batch, and `rsa`
    takes the mean over all batches.

    Attributes:
      embed_dim: D.
      method: of METHODS.
    """

    embed_dim: int = 512
    method: str = "average"

    def setup(self) -> None:
        """Check the method, then declare its head, if it has one."""
        if self.method not in METHODS:
            raise ValueError(
                f"WeightedFusion: unknown method {self.method!r}; use one of {METHODS}."
            )
        if self.method == "pfe":
            self.head = UncertaintyHead(self.embed_dim)
        elif self.method == "cfan":
            self.head = QualityHead(self.embed_dim)
        elif self.method == "rsa":
            self.head = ResidualSelfAttention(self.embed_dim // 2)

    def __call__(self, sets: ImageSets, *, train: bool = False) -> Fused:
        """Fuse all images of each set at once; see `ClusterAggregate`."""
        state = self.init_state(len(sets.mask))
        return self.finalize(self.update(state, sets, train=train))

    def init_state(self, batch: int) -> WeightedState:
        """State of sets without images."""
        per_channel = self.method in ("pfe", "cfan")
        return sums.init_state(
            batch,
            embed_dim=self.embed_dim,
            weight_dim=self.embed_dim if per_channel else 1,
        )

    def update(
        self, state: WeightedState, sets: ImageSets, *, train: bool = False
    ) -> WeightedState:
        """Add images to each set.

        Raises: ValueError: sizes do not fit each other or the model.
        """
        values, log_weights = self.weigh(sets, train=train)
        return sums.update(state, values, log_weights, sets.mask)

    def merge(self, first: WeightedState, second: WeightedState) -> WeightedState:
        """State of both streams' images."""
        return sums.merge(first, second)

    def finalize(self, state: WeightedState) -> Fused:
        """Divide."""
        return Fused(sums.finalize(state))

    def weigh(self, sets: ImageSets, *, train: bool = False) -> tuple[Array, Array]:
        """Values to average, float32 [B, N, D], and log weights [B, N, D or 1].

        Raises: ValueError: embeddings of another width than embed_dim; no style where
          the weights are estimated from it.
        """
        embeddings, equal = self.check_embeddings(sets)
        style, mask = sets.features.style, sets.mask
        if self.method == "norm_weighted":
            return embeddings, equal
        if self.method == "average":
            return unit(embeddings), equal
        if self.method == "inlier_average":
            units = unit(embeddings)
            kept = inliers(units, mask)[..., None]
            return units, jnp.where(kept, 0.0, _DROPPED)
        if self.method == "rsa":
            refined = self.head.refine(unit(embeddings)[:, :, None, None], mask)
            return refined[:, :, 0, 0], equal
        if style is None:
            raise ValueError(
                f"WeightedFusion: {self.method} estimates weights from style; got "
                "features without; compute them with style, or take another method."
            )
        flat = style.reshape(*mask.shape, 1, 1, -1)
        estimate = self.head(flat, mask, train=train)
        if self.method == "pfe":
            return unit(embeddings), -estimate
        return embeddings, estimate

    def check_embeddings(self, sets: ImageSets) -> tuple[Array, Array]:
        """Embeddings float32 [B, N, D], 0 for padding, and log weights 0 [B, N, 1].

        Raises: ValueError: embeddings of another width than embed_dim.
        """
        embeddings, mask = sets.features.embeddings, sets.mask
        if embeddings.shape[-1] != self.embed_dim:
            raise ValueError(
                f"{type(self).__name__}: embeddings must have {self.embed_dim} "
                f"channels; got {embeddings.shape[-1]}; fuse embeddings of one "
                "backbone and set embed_dim to their size."
            )
        embeddings = jnp.where(mask[..., None], embeddings, 0).astype(jnp.float32)
        return embeddings, jnp.zeros((*mask.shape, 1))
