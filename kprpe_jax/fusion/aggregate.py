"""Aggregation Network: clusters of a set to one embedding."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from kprpe_jax.fusion.cluster import LINEAR_INIT, NORM_EPSILON
from kprpe_jax.fusion.state import Clusters
from kprpe_jax.layers.mlp import Mlp


class GatedMixerBlock(nn.Module):
    """Mix over clusters, then over channels; one layer norm and a gate for both.

    Source: the official code of Cluster and Aggregate: the gate, 1 at first, is a
    learned factor of the first residual.
    """

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, M, c] -> [B, M, c]."""
        clusters, width = x.shape[-2:]
        mlp = dict(activation="gelu", kernel_init=LINEAR_INIT)
        norm = nn.LayerNorm(epsilon=NORM_EPSILON, name="norm")
        gate = self.param("gate", nn.initializers.ones, ())
        mixed = Mlp(2 * clusters, **mlp, name="clusters")(norm(x).swapaxes(1, 2))
        x = gate * x + mixed.swapaxes(1, 2)
        return x + Mlp(width // 2, **mlp, name="channels")(norm(x))


class AggregationNetwork(nn.Module):
    """Weights of the clusters, and their weighted sum.

    Source: Cluster and Aggregate, Eq. 6.

    Attributes:
      depth: mixer blocks.
      per_channel: a weight for every channel of a cluster, else one for all of them.
    """

    depth: int = 2
    per_channel: bool = True

    @nn.compact
    def __call__(self, clusters: Clusters, centers: Array) -> tuple[Array, Array]:
        """Fuse.

        Args:
          clusters: F' [B, M, D] and S' [B, M, d].
          centers: C [M, d].
        Returns: f, float32 [B, D], not normalized; P, float32 [B, M, D or 1], sums to 1
          over the clusters.
        """
        shared = jnp.broadcast_to(centers, clusters.styles.shape)
        # The other way round than in Eq. 6, as in the official code: it only permutes
        # the weights.
        x = jnp.concatenate([shared, clusters.styles], axis=-1)
        for n in range(self.depth):
            x = GatedMixerBlock(name=f"block{n}")(x)
        hidden = nn.Dense(x.shape[-1], kernel_init=LINEAR_INIT, name="fc1")(x)
        hidden = nn.gelu(hidden, approximate=False)
        outputs = clusters.features.shape[-1] if self.per_channel else 1
        logits = nn.Dense(outputs, kernel_init=LINEAR_INIT, name="fc2")(hidden)
        importance = jax.nn.softmax(logits, axis=1)
        return (importance * clusters.features).sum(1), importance


def image_weights(
    assignment: Array, importance: Array, *, rows: str = "as_assigned"
) -> Array:
    """Compute the weight of each image in the fused embedding.

    Source: Cluster and Aggregate, Supp. F.

    Args:
      assignment: A [B, M, N] of all images of the sets; 0 for padding.
      importance: P [B, M, C] of the final state.
      rows: `as_assigned`: A as it is, as in Supp. F; `normalized`: rows of A divided by
        their sums, which is what enters F', as in the official demo.
    Returns: float32 [B, N], sums to 1; 0 for sets without images.
    Raises: ValueError: unknown rows.
    """
    if rows not in ("as_assigned", "normalized"):
        raise ValueError(
            f"image_weights: unknown rows {rows!r}; use as_assigned or normalized."
        )
    if rows == "normalized":
        assignment = _share(assignment)
    return _share(jnp.einsum("bmn,bm->bn", assignment, importance.mean(-1)))


def assignment_entropy(assignment: Array) -> Array:
    """Compute the entropy of each cluster's assignment over the images.

    Source: Cluster and Aggregate, Supp. E; the mean over the clusters that its text
    names, where its formula has the sum.

    Args:
      assignment: A [B, M, N]; 0 for padding.
    Returns: float32 [B], in nats: log of the number of images where all count the same,
      0 where each cluster has one image, or the set none.
    """
    share = _share(assignment)
    positive = share > 0
    logs = jnp.where(positive, jnp.log(jnp.where(positive, share, 1.0)), 0.0)
    return -(share * logs).sum(-1).mean(-1)


def _share(x: Array) -> Array:
    """Divide by the sum of the last axis; zeros stay zeros."""
    return x / jnp.maximum(x.sum(-1, keepdims=True), 1e-12)
