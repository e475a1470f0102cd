"""What compares patches in the second stage, and how it explains what it says."""

import os
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kprpe_jax.core.features import Features
from kprpe_jax.gallery.gallery import Model
from kprpe_jax.gallery.pair_run import PairRun, read_pair_run
from kprpe_jax.matching.earth_movers import match_faces
from kprpe_jax.matching.explanations import (
    cross_correlation,
    pair_tokens,
    rollout_heat,
)
from kprpe_jax.matching.matchers import EarthMoversMatcher, PairMatcher
from kprpe_jax.matching.patch_weights import DEFAULT_WEIGHTING
from kprpe_jax.matching.two_image import SameOrNot


class Explanation(NamedTuple):
    """Why a query and a candidate match.

    Attributes:
      query_heat: float32 [N] >= 0, of the query's patches.
      heat: float32 [M] >= 0, of the candidate's.
      flow: float32 [N, M] >= 0, weight from patch to patch; None: there is none.
    """

    query_heat: np.ndarray
    heat: np.ndarray
    flow: np.ndarray | None


class SecondStage(NamedTuple):
    """A way to compare patches.

    Attributes:
      compare: (queries, gallery, rows [Q, k]) -> similarities float32 [Q, k].
      explain: (query [1, ...], candidates [k, ...]) -> one `Explanation` each.
    """

    compare: Callable[[Features, Features, np.ndarray], np.ndarray]
    explain: Callable[[Features, Features], list[Explanation]]


def earth_movers_stage(weighting: str = DEFAULT_WEIGHTING) -> SecondStage:
    """The earth mover's distance, explained by its flow (DeepFace-EMD, Sec. 3.2).

    Args:
      weighting: of the patches, one of `patch_weights.WEIGHTINGS`.
    """
    match = jax.jit(partial(match_faces, weighting=weighting))

    def explain(query: Features, candidates: Features) -> list[Explanation]:
        # Round-off may leave a flow a little below zero.
        flow = np.maximum(np.asarray(match(query, candidates).flow), 0)
        return [Explanation(f.sum(1), f.sum(0), f) for f in flow]

    return SecondStage(EarthMoversMatcher(weighting).score, explain)


def network_stage(
    workdir: str | os.PathLike,
    gallery: Model | None = None,
    *,
    checkpoint: int | str = "last",
) -> SecondStage:
    """The transformer of a pair matching run, explained by heat maps.

    V, H1 and H2L by cross-correlation; H2, which ends in its class token, by attention
    rollout (Face-ViT, Sec. 5.3.3).

    Args:
      workdir: folder of the run.
      gallery: whose patches are compared: shapes are checked. Whether the same CNN made
        them as those that the run learned from, nobody can see.
      checkpoint: a step, "last" or "best".
    Raises: ValueError: as `read_pair_run`; a run that reads something else than the
      patches of the gallery.
    """
    run = read_pair_run(workdir, checkpoint=checkpoint)
    if gallery is not None:
        _check_patches(run, gallery, workdir)
    heat = jax.jit(partial(_heat, run))

    def explain(query: Features, candidates: Features) -> list[Explanation]:
        first = jnp.broadcast_to(query.patches, candidates.patches.shape)
        heats = map(np.asarray, heat(first, candidates.patches))
        return [Explanation(*pair, None) for pair in zip(*heats, strict=True)]

    return SecondStage(PairMatcher(run.model, run.variables).score, explain)


def _heat(run: PairRun, first: Array, second: Array) -> tuple[Array, ...]:
    tokens = pair_tokens(run.model, run.variables, first, second)
    if isinstance(run.model, SameOrNot):
        residual = 0.0 if run.config.model.attention == "norm" else 0.5
        return rollout_heat(*tokens, residual=residual)
    return cross_correlation(*(part for one in tokens for part in one.patches))


def _check_patches(run: PairRun, gallery: Model, workdir: str | os.PathLike) -> None:
    """The run must read patches, as many and as wide as the gallery's."""
    config = run.config
    where = f"network_stage: the run in {os.fspath(workdir)}"
    if config.model.window_size or config.train_backbone:
        raise ValueError(
            f"{where} must read the patches of the gallery's network; got one that "
            "makes its own from images, which a gallery does not keep; train one on "
            "patches."
        )
    if gallery.patches == "none":
        raise ValueError(
            f"{where} compares patches; got a gallery that keeps none; enroll with "
            "--patches bfloat16."
        )
    reads = config.model.num_patches, config.model.width
    keeps = gallery.grid[0] * gallery.grid[1], gallery.channels
    if reads != keeps:
        raise ValueError(
            f"{where} reads {reads[0]} patches of {reads[1]}; got a gallery of "
            f"{gallery.name} with {keeps[0]} of {keeps[1]}; give a run on the patches "
            "of that network."
        )
