"""What compares the patches of two faces, and how it explains its scores."""

from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh

from kprpe_jax.core.features import Features
from kprpe_jax.matching.candidates import (
    compare_candidates,
    flat_pairs,
    match_chunk,
    needed_fields,
    score_candidates,
)
from kprpe_jax.matching.explanations import (
    cross_correlation,
    pair_tokens,
    rollout_heat,
)
from kprpe_jax.matching.patch_weights import DEFAULT_WEIGHTING, Grids
from kprpe_jax.matching.sinkhorn import FAST, Solver
from kprpe_jax.matching.two_image import PairNetwork, SameOrNot, score_pairs


class Explanation(NamedTuple):
    """Why queries and their candidates match.

    Attributes:
      scores: float32 [Q, k], -inf where there is no candidate.
      query_heat: float32 [Q, k, N] >= 0, of the query's patches.
      heat: float32 [Q, k, M] >= 0, of the candidate's.
      flow: float32 [Q, k, N, M] >= 0, weight from patch to patch; None: there is none.
    """

    scores: np.ndarray
    query_heat: np.ndarray
    heat: np.ndarray
    flow: np.ndarray | None = None


class Matcher(Protocol):
    """Compares the patches of queries with those of their candidates."""

    def score(
        self, queries: Features, gallery: Features, rows: np.ndarray
    ) -> np.ndarray:
        """Similarities of each query with its own candidates.

        Args:
          queries, gallery: [Q, ...] and [G, ...], host or device.
          rows: int [Q, k], gallery rows; -1 = no candidate.
        Returns: float32 [Q, k], -inf where there is no candidate.
        Raises: ValueError: as `candidates.compare_candidates`.
        """

    def explain(
        self, queries: Features, gallery: Features, rows: np.ndarray
    ) -> Explanation:
        """The same scores, and what they are made of; arguments as `score`."""


class EarthMoversMatcher(NamedTuple):
    """The earth mover's distance, explained by its flow (DeepFace-EMD, Sec. 3.2).

    Attributes:
      weighting: of the patches, one of `patch_weights.WEIGHTINGS`.
      grid: of the patches, for the weighting `landmarks`.
      solver: how flows are computed.
      chunk: queries compared at once: chunk * k * N * (C + a few M) * 4 bytes; with a
        mesh a multiple of its devices. None: 8 a device; on CPUs 1, which stays in the
        caches and is twice as fast.
      mesh: its devices share the queries of a chunk.
    """

    weighting: str = DEFAULT_WEIGHTING
    grid: Grids | None = None
    solver: Solver = FAST
    chunk: int | None = None
    mesh: Mesh | None = None

    def score(
        self, queries: Features, gallery: Features, rows: np.ndarray
    ) -> np.ndarray:
        """As `Matcher.score`."""
        return self._compare(queries, gallery, rows, ("score",))[0]

    def explain(
        self, queries: Features, gallery: Features, rows: np.ndarray
    ) -> Explanation:
        """As `Matcher.explain`."""
        scores, flow = self._compare(queries, gallery, rows, ("score", "flow"))
        flow = np.maximum(flow, 0)  # round-off may leave it a little below
        return Explanation(scores, flow.sum(-1), flow.sum(-2), flow)

    def _compare(
        self,
        queries: Features,
        gallery: Features,
        rows: np.ndarray,
        fields: tuple[str, ...],
    ) -> tuple[np.ndarray, ...]:
        """These fields of `Match` of each query with its own candidates."""
        options = self.weighting, self.grid, self.solver, self.mesh, fields
        sides = (needed_fields(x, self.weighting) for x in (queries, gallery))

        def compare(query: Features, candidates: Features) -> tuple[Array, ...]:
            return match_chunk(query, candidates, *options)

        return compare_candidates(
            compare, *sides, rows, chunk=self.chunk, mesh=self.mesh
        )


class PairMatcher(NamedTuple):
    """A transformer of two images, explained by heat maps.

    V, H1 and H2L by cross-correlation; H2, which ends in its class token, by attention
    rollout (Face-ViT, Sec. 5.3.3).

    Attributes:
      model, variables: the network, which reads patches.
      chunk: queries compared at once; None: as `EarthMoversMatcher`.
    """

    model: PairNetwork
    variables: dict[str, Any]
    chunk: int | None = None

    def score(
        self, queries: Features, gallery: Features, rows: np.ndarray
    ) -> np.ndarray:
        """As `Matcher.score`."""
        score = partial(_pair_scores, self.model, self.variables)
        sides = queries.patches, gallery.patches
        return score_candidates(score, *sides, rows, chunk=self.chunk)

    def explain(
        self, queries: Features, gallery: Features, rows: np.ndarray
    ) -> Explanation:
        """As `Matcher.explain`."""
        explain = partial(_pair_heat, self.model, self.variables)

        def compare(query: Array, candidates: Array) -> tuple[Array, ...]:
            found = explain(*flat_pairs(query, candidates))
            return tuple(x.reshape(*candidates.shape[:2], *x.shape[1:]) for x in found)

        sides = queries.patches, gallery.patches
        return Explanation(*compare_candidates(compare, *sides, rows, chunk=self.chunk))

    def check_patches(self, grid: tuple[int, int], channels: int) -> None:
        """Check that the network reads the patches of a recognizer.

        Args:
          grid: (rows, columns) of the recognizer's patches.
          channels: C, of a patch.
        Raises: ValueError: other patches, or a network that makes its own from images.
        """
        encoder = self.model.encoder
        if encoder.windows is not None:
            raise ValueError(
                "the matcher must read the patches of a recognizer; got one that makes "
                "its own from images; take one that was trained on patches."
            )
        reads, has = (encoder.num_patches, encoder.width), (grid[0] * grid[1], channels)
        if reads != has:
            raise ValueError(
                f"the matcher reads {reads[0]} patches of {reads[1]} numbers; got a "
                f"recognizer with {has[0]} of {has[1]}; take one that was trained on "
                "the patches of that network."
            )


_pair_scores = jax.jit(score_pairs, static_argnums=0)


@partial(jax.jit, static_argnums=0)
def _pair_heat(
    model: PairNetwork, variables: dict[str, Any], first: Array, second: Array
) -> tuple[Array, ...]:
    """Scores [P] and the heat [P, N] of both images."""
    score = score_pairs(model, variables, first, second)
    tokens = pair_tokens(model, variables, first, second)
    if isinstance(model, SameOrNot):
        residual = 0.0 if model.encoder.attention == "norm" else 0.5
        return score, *rollout_heat(*tokens, residual=residual)
    sides = (part for one in tokens for part in one.patches)
    return score, *cross_correlation(*sides)
