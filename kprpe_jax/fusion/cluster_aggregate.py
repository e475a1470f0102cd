"""CAFace: cluster the images of a person, then aggregate the clusters."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from kprpe_jax.core.features import Features
from kprpe_jax.core.unit import soft_unit
from kprpe_jax.fusion import state as sums
from kprpe_jax.fusion.aggregate import AggregationNetwork
from kprpe_jax.fusion.cluster import ClusterNetwork
from kprpe_jax.fusion.norm_embedding import NormEmbedding
from kprpe_jax.fusion.state import Clusters, FusionState
from kprpe_jax.fusion.style import StyleInputMaker

VALUES = ("embeddings", "unit")
STYLE_VALUES = ("keys", "transformed")
VARIANTS: dict[str, dict[str, Any]] = {
    "paper": {},
    "official": dict(
        style_pool="sum",
        style_activation="prelu",
        norm_rounding="toward_zero",
        norm_positions="from_zero",
        norm_scale=True,
        values="unit",
        style_values="transformed",
        row_sums="at_least_one",
        minimum_mass=1e-6,
    ),
}


class ImageSets(NamedTuple):
    """Images of B persons.

    Attributes:
      features: embeddings [B, N, D], not normalized, where one of norm 0 counts as an
        image like any other; style [B, N, C, 2], or None: images then differ in style
        by the norms of their embeddings alone. The other fields are not read.
      mask: bool [B, N]; False = padding, whose features do not matter.
      scores: float32 [B, N] in [0, 1], the detector's; None = 1.
    """

    features: Features
    mask: Array
    scores: Array | None = None


class Assignment(NamedTuple):
    """Assignment of the images of each set to the clusters.

    Attributes:
      map: A, float32 [B, M, N] in [0, 1]; columns sum to 1, those of padding are 0.
      styles: float32 [B, N, d], what S' is made of; 0 for padding.
    """

    map: Array
    styles: Array


class Fused(NamedTuple):
    """One embedding per set, with the clusters that it was made of.

    Attributes:
      embeddings: f, float32 [B, D], not normalized; 0 for a set without images.
      importance: P, float32 [B, M, D or 1]; None where the model has no clusters.
      clusters: F' and S'; None where the model has no clusters.
    """

    embeddings: Array
    importance: Array | None = None
    clusters: Clusters | None = None

    @property
    def features(self) -> Features:
        """The fused sets as galleries and protocols take them."""
        return Features(self.embeddings)


class ClusterAggregate(nn.Module):
    """Sets of images to embeddings, at once or in a stream.

    `model.apply(variables, sets)` fuses at once. For streams there are four functions:
    `model.init_state(B)`, `model.apply(variables, state, sets, method="update")`,
    `fusion.state.merge` and `model.apply(variables, state, method="finalize")`.

    `train=True` collects batch statistics and drops paths, so `apply` then takes
    `mutable=["batch_stats"]` and `rngs={"dropout": key}`, and returns the changed
    statistics beside its result.

    Source: Cluster and Aggregate, Sec. 3.1. The options from `style_pool` on are where
    the official code differs from the paper; see VARIANTS.

    Attributes:
      embed_dim: D, the width of the embeddings; the number C of style channels is
        taken from the first sets.
      num_clusters: M.
      style_dim, norm_dim: lengths of the two parts of a key; d is their sum.
      depth, num_heads: of the transformer over the keys of a batch; with depth 0 the
        assignment of an image does not depend on its batch-mates.
      mixer_depth: blocks of the mixer.
      per_channel: of `AggregationNetwork`.
      drop_path_rate: of `ClusterNetwork`.
      style_pool, style_activation: of `StyleInputMaker`.
      norm_rounding, norm_positions: of `NormEmbedding`; norm_scale: its
        `learned_scale`.
      values: what is clustered: the `embeddings` as they are, or made `unit` vectors.
      style_values: what S' clusters: the `keys` S (Eq. 5), or these `transformed` and
        layer-normed.
      row_sums: of `fusion.state.update`.
      minimum_mass: of `fusion.state.finalize`.
    """

    embed_dim: int = 512
    num_clusters: int = 4
    style_dim: int = 64
    norm_dim: int = 64
    depth: int = 2
    num_heads: int = 8
    mixer_depth: int = 2
    per_channel: bool = True
    drop_path_rate: float = 0.1
    style_pool: str = "mean"
    style_activation: str = "relu"
    norm_rounding: str = "floor"
    norm_positions: str = "signed"
    norm_scale: bool = False
    values: str = "embeddings"
    style_values: str = "keys"
    row_sums: str = "exact"
    minimum_mass: float = 1e-12

    def setup(self) -> None:
        """Check the options, then declare the parts."""
        for name, choices in (("values", VALUES), ("style_values", STYLE_VALUES)):
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"ClusterAggregate: unknown {name} {getattr(self, name)!r}; use "
                    f"one of {choices}."
                )
        key = self.style_dim + self.norm_dim
        if self.depth and key % self.num_heads:
            raise ValueError(
                "ClusterAggregate: style_dim + norm_dim must be a multiple of "
                f"num_heads; got {self.style_dim} + {self.norm_dim} and "
                f"{self.num_heads}."
            )
        self.style_maker = StyleInputMaker(
            self.style_dim, self.style_pool, self.style_activation
        )
        self.norm_embedding = NormEmbedding(
            self.norm_dim, self.norm_rounding, self.norm_positions, self.norm_scale
        )
        self.cluster = ClusterNetwork(self.depth, self.num_heads, self.drop_path_rate)
        self.centers = self.param(
            "centers",
            nn.initializers.orthogonal(),
            (self.num_clusters, key),
        )
        self.aggregation = AggregationNetwork(self.mixer_depth, self.per_channel)

    def __call__(self, sets: ImageSets, *, train: bool = False) -> Fused:
        """Fuse all images of each set at once.

        Args:
          sets: B sets, any N.
          train: batch statistics and drop paths are on; needs `batch_stats` to be
            mutable, and the rng stream `dropout` where paths are dropped.
        Raises: ValueError: sizes do not fit each other or the model.
        """
        state = self.init_state(len(sets.mask))
        return self.finalize(self.update(state, sets, train=train))

    def init_state(self, batch: int) -> FusionState:
        """State of sets without images."""
        return sums.init_state(
            batch,
            num_clusters=self.num_clusters,
            embed_dim=self.embed_dim,
            style_dim=self.style_dim + self.norm_dim,
        )

    def merge(self, first: FusionState, second: FusionState) -> FusionState:
        """State of both streams' images; `fusion.state.merge`."""
        return sums.merge(first, second)

    def update(
        self, state: FusionState, sets: ImageSets, *, train: bool = False
    ) -> FusionState:
        """Add images to each set; those of one call see each other in the transformer.

        Args and Raises: as `__call__`.
        """
        style = self.style(sets, train=train)
        embeddings = sets.features.embeddings
        return self.update_styled(state, embeddings, style, sets.mask, train=train)

    def style(self, sets: ImageSets, *, train: bool = False) -> Array:
        """Style vectors gamma of Eq. 4, float32 [B, N, style_dim].

        Raises: ValueError: shapes of the sets that do not fit each other.
        """
        embeddings, style = sets.features.embeddings, sets.features.style
        if style is None:
            style = jnp.zeros((*embeddings.shape[:2], 1, 2))
        shapes = [x.shape for x in (embeddings, style, sets.mask)]
        pairs = {shape[:2] for shape in shapes}
        if len(pairs) > 1 or [len(shape) for shape in shapes] != [3, 4, 2]:
            raise ValueError(
                "ClusterAggregate: sets must be embeddings [B, N, D], style "
                f"[B, N, C, 2] and mask [B, N]; got {shapes}; pad all sets to one N."
            )
        style = _no_padding(style, sets.mask)
        return self.style_maker(style, sets.mask, train=train)

    def update_styled(
        self,
        state: FusionState,
        embeddings: Array,
        style: Array,
        mask: Array,
        *,
        train: bool = False,
    ) -> FusionState:
        """As `update`, with given style vectors.

        Args:
          embeddings: [B, N, embed_dim].
          style: [B, N, style_dim].
          mask: bool [B, N].
        """
        assignment = self.assign(embeddings, style, mask, train=train)
        values = _no_padding(embeddings, mask)
        if self.values == "unit":
            values = soft_unit(values)
        return sums.update(
            state, assignment.map, values, assignment.styles, row_sums=self.row_sums
        )

    def assign(
        self, embeddings: Array, style: Array, mask: Array, *, train: bool = False
    ) -> Assignment:
        """Assignment of images that see each other; arguments as `update_styled`.

        Raises: ValueError: embeddings of another width than embed_dim.
        """
        if embeddings.shape[-1] != self.embed_dim:
            raise ValueError(
                f"ClusterAggregate: embeddings must have {self.embed_dim} channels; "
                f"got {embeddings.shape[-1]}; fuse embeddings of one backbone and set "
                "embed_dim to their size."
            )
        norms = self.norm_embedding(_no_padding(embeddings, mask), mask, train=train)
        keys = _no_padding(jnp.concatenate([style, norms], axis=-1), mask)
        map_, transformed = self.cluster(keys, self.centers, mask, train=train)
        if self.style_values == "keys":
            return Assignment(map_, keys)
        return Assignment(map_, _no_padding(transformed, mask))

    def assignment(self, sets: ImageSets) -> Assignment:
        """Assignment of images that see each other, for pictures and statistics."""
        return self.assign(sets.features.embeddings, self.style(sets), sets.mask)

    def finalize(self, state: FusionState) -> Fused:
        """Divide and aggregate.

        Raises: ValueError: the state is of a model of other sizes.
        """
        shapes = [x.shape for x in state]
        want = [x.shape for x in self.init_state(state.mass.shape[0])]
        if shapes != want:
            raise ValueError(
                "ClusterAggregate: the state must be of a model with these sizes; got "
                f"{shapes}, needs {want}; finish a stream with the model that began it."
            )
        clusters = sums.finalize(state, minimum_mass=self.minimum_mass)
        embeddings, importance = self.aggregation(clusters, self.centers)
        return Fused(embeddings, importance, clusters)


def _no_padding(x: Array, mask: Array) -> Array:
    """Zeros where the mask [B, N] is False, whatever [B, N, ...] holds there."""
    return jnp.where(jnp.expand_dims(mask, tuple(range(2, x.ndim))), x, 0)
