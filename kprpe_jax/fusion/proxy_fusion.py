"""ProxyFusion: learned proxies choose experts, each of which weighs the images anew."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from kprpe_jax.core.checks import check_option
from kprpe_jax.core.unit import unit
from kprpe_jax.fusion.cluster_aggregate import Fused, ImageSets
from kprpe_jax.fusion.state import add_states

SIDES = ("probe", "gallery")


class ProxyState(NamedTuple):
    """Sums over the batches so far; K is the number of proxies.

    Attributes:
      total: float32 [B, K, D], fused vectors of the batches, times their images.
      similarity: float32 [B, K], summed over the images.
      images: float32 [B].
    """

    total: Array
    similarity: Array
    images: Array


class ProxyFusion(nn.Module):
    """Sets of images to embeddings, at once or in a stream.

    The functions are those of `ClusterAggregate`. Each proxy has an expert, a network
    that turns mean, variance and proxy into a context, which the images are compared
    with: a softmax over them weighs their unit embeddings. The proxies that the set is
    most similar to are chosen; `vectors` gives theirs.

    Of a stream: sums of similarities choose the same proxies as all images at once do.
    Mean, variance and softmax are those of a batch, and the fused vectors of batches
    are averaged by their number of images, because a context is known only when all
    images are: exact for sets of one batch, an approximation for longer ones.

    Source: Jawade et al., ProxyFusion: face feature aggregation through sparse experts,
    NeurIPS 2024, as the released code has it. Ours: the mean of the chosen unit vectors
    as the embedding of a set, since all else here compares one vector with one (the
    dot product of two such means is the mean of all pairs' cosines); one of both sides
    for probes and gallery; proxies and projections start by the released rule, a bias
    of 0 included.

    Attributes:
      embed_dim: D.
      side: which proxies are compared with, and whether a linear layer stands before
        the contexts, as for probes; one of SIDES.
      num_proxies: K; num_chosen: of them, for a set.
      select_dim: width of the space in which proxies are chosen.
      dropout_rate: of the experts' layers in training; needs the rng stream `dropout`.
    """

    embed_dim: int = 512
    side: str = "probe"
    num_proxies: int = 11
    num_chosen: int = 4
    select_dim: int = 10
    dropout_rate: float = 0.7

    def setup(self) -> None:
        """Check the options, then declare the parts; those of both sides."""
        check_option("ProxyFusion", "side", self.side, SIDES)
        if not 1 <= self.num_chosen <= self.num_proxies:
            raise ValueError(
                "ProxyFusion: num_chosen must lie in 1 .. num_proxies = "
                f"{self.num_proxies}; got {self.num_chosen}."
            )
        fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
        rows = nn.initializers.normal((2.0 / self.num_proxies) ** 0.5)
        shape = (self.num_proxies, self.embed_dim)
        self.proxies = {s: self.param(f"proxies_{s}", rows, shape) for s in SIDES}
        self.select = nn.Dense(self.select_dim, kernel_init=fan_out)
        self.probe_linear = nn.Dense(self.embed_dim, kernel_init=_identity)
        width, wide = self.embed_dim, 2 * self.embed_dim
        self.experts = [
            Experts(self.num_proxies, *sizes)
            for sizes in ((3 * width, wide), (wide, wide), (wide, width))
        ]
        self.dropout = nn.Dropout(self.dropout_rate)

    def __call__(self, sets: ImageSets, *, train: bool = False) -> Fused:
        """Fuse all images of each set at once; see `ClusterAggregate`."""
        state = self.init_state(len(sets.mask))
        return self.finalize(self.update(state, sets, train=train))

    def init_state(self, batch: int) -> ProxyState:
        """State of sets without images."""
        similarity = jnp.zeros((batch, self.num_proxies))
        total = jnp.zeros((batch, self.num_proxies, self.embed_dim))
        return ProxyState(total, similarity, jnp.zeros(batch))

    def update(
        self, state: ProxyState, sets: ImageSets, *, train: bool = False
    ) -> ProxyState:
        """Add images to each set; those of one call see each other.

        Raises: ValueError: sizes do not fit each other, the model or the state.
        """
        embeddings, mask = sets.features.embeddings, sets.mask
        if embeddings.shape != (*mask.shape, self.embed_dim):
            raise ValueError(
                f"ProxyFusion: embeddings must be [B, N, {self.embed_dim}] and the "
                f"mask [B, N]; got {embeddings.shape} and {mask.shape}; fuse "
                "embeddings of one backbone and set embed_dim to their size."
            )
        embeddings = jnp.where(mask[..., None], embeddings, 0).astype(jnp.float32)
        images = mask.sum(1).astype(jnp.float32)
        attention = self.attend(embeddings, mask, train=train)
        vectors = jnp.einsum("bnk,bnd->bkd", attention, unit(embeddings))
        added = ProxyState(
            images[:, None, None] * vectors,
            self.similarities(embeddings, mask).sum(1),
            images,
        )
        return self.merge(state, added)

    def similarities(self, embeddings: Array, mask: Array) -> Array:
        """Cosines of images and proxies where these are chosen, float32 [B, N, K].

        Args:
          embeddings: float32 [B, N, D].
          mask: bool [B, N]; those of padding are 0.
        """
        images = unit(self.select(embeddings))
        proxies = unit(self.select(self.proxies[self.side]))
        found = jnp.einsum("bns,ks->bnk", images, proxies)
        return jnp.where(mask[..., None], found, 0.0)

    def attend(self, embeddings: Array, mask: Array, *, train: bool = False) -> Array:
        """Weights of the images for each proxy, float32 [B, N, K]; arguments as above.

        They sum to 1 over the images; 0 for padding.
        """
        count = jnp.maximum(mask.sum(1), 1)[:, None]
        mean = embeddings.sum(1) / count
        away = jnp.where(mask[..., None], embeddings - mean[:, None], 0.0)
        variance = jnp.square(away).sum(1) / count
        shape = (mask.shape[0], self.num_proxies, self.embed_dim)
        parts = (mean[:, None], variance[:, None], self.proxies[self.side])
        x = jnp.concatenate([jnp.broadcast_to(part, shape) for part in parts], axis=-1)
        for number, layer in enumerate(self.experts):
            x = layer(x)
            if number < len(self.experts) - 1:
                x = nn.leaky_relu(x, 0.01)
            x = self.dropout(x, deterministic=not train)
        contexts = nn.leaky_relu(x, 0.01)
        queries = embeddings
        if self.side == "probe" or self.is_initializing():
            queries = self.probe_linear(embeddings)
        logits = jnp.einsum("bnd,bkd->bnk", queries, contexts)
        lowest = jnp.finfo(jnp.float32).min
        weights = jax.nn.softmax(jnp.where(mask[..., None], logits, lowest), axis=1)
        return jnp.where(mask[..., None], weights, 0.0)

    def merge(self, first: ProxyState, second: ProxyState) -> ProxyState:
        """State of both streams' images.

        Raises: ValueError: the states are of different sets or models.
        """
        return add_states(first, second)

    def vectors(self, state: ProxyState) -> Array:
        """Fused vectors of the chosen proxies, by descending similarity.

        Returns: float32 [B, num_chosen, D], not normalized; 0 without images.
        """
        _, chosen = jax.lax.top_k(state.similarity, self.num_chosen)
        means = state.total / jnp.maximum(state.images, 1)[:, None, None]
        return jnp.take_along_axis(means, chosen[..., None], axis=1)

    def finalize(self, state: ProxyState) -> Fused:
        """The mean of the chosen unit vectors."""
        return Fused(unit(self.vectors(state)).mean(1))


class Experts(nn.Module):
    """A linear layer of each expert, on its own row.

    Attributes:
      count: K.
      inputs, outputs: widths.
    """

    count: int
    inputs: int
    outputs: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, K, inputs] -> [B, K, outputs]."""
        # Small, as released: training starts at equal weights.
        start = nn.initializers.normal(0.001)
        kernel = self.param("kernel", start, (self.count, self.inputs, self.outputs))
        bias = self.param("bias", nn.initializers.zeros, (self.count, self.outputs))
        return jnp.einsum("bki,kio->bko", x, kernel) + bias


def _identity(rng: Array, shape: tuple[int, int], dtype=jnp.float32) -> Array:
    """An initializer: the identity."""
    del rng
    return jnp.eye(*shape, dtype=dtype)
