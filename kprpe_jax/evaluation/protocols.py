"""Published protocols, from embeddings or pooled templates to their numbers.

Pair tests over folds are in `verification`. All numbers are shares in [0, 1].
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.typing import ArrayLike

from kprpe_jax.evaluation.identification import (
    open_set,
    outcome_of_search,
    rank_accuracy,
)
from kprpe_jax.evaluation.roc import FARS, TarAtFar
from kprpe_jax.evaluation.scores import stream_pair_similarity
from kprpe_jax.evaluation.streamed_roc import stream_tar_at_far
from kprpe_jax.evaluation.templates import Templates, template_rows
from kprpe_jax.matching.nearest import NO_IDENTITY, search

DISTRACTOR = NO_IDENTITY + 1  # identity that no probe has
_ROUND_OFF = 1e-6  # of a float32 cosine, summed in another order


def template_verification(
    templates: Templates,
    first: ArrayLike,
    second: ArrayLike,
    same: ArrayLike,
    *,
    fars: Sequence[float] = FARS,
    block: int = 1 << 15,
) -> TarAtFar:
    """IJB-B and IJB-C 1:1, TAR at FAR over listed pairs of templates.

    Besides the templates, the lists and one block, 4 bytes per pair are in use.

    Args:
      templates: from `pool_templates`.
      first, second: int [P], ids of templates.
      same: bool [P].
      fars: wanted, in [0, 1).
      block: pairs compared at once.
    Raises: ValueError: a pair names a template without images; lists of different
      lengths; pairs of one kind only.
    """
    first, second, same = map(np.asarray, (first, second, same))
    if first.ndim != 1 or not first.shape == second.shape == same.shape:
        raise ValueError(
            "template_verification: first, second and same must be lists of one "
            f"length; got {first.shape}, {second.shape} and {same.shape}."
        )
    embeddings = jnp.asarray(templates.unit_embeddings)
    scores = np.empty(len(first), np.float32)
    for start in range(0, len(first), block):
        part = slice(start, start + block)
        # Looked up block by block: rows of all pairs would be 16 bytes for each.
        rows = (template_rows(templates.ids, side[part]) for side in (first, second))
        (scores[part],) = stream_pair_similarity(embeddings, *rows, block=block)
    cuts = range(block, len(scores), block)
    return stream_tar_at_far(
        lambda: zip(np.split(scores, cuts), np.split(same, cuts), strict=True), fars
    )


class GallerySearch(NamedTuple):
    """Result of `gallery_search`, means over the galleries.

    Attributes:
      rank: float64 [R], rank-k of the mated probes.
      tpir: float64 [F], at each wanted FPIR.
    """

    rank: np.ndarray
    tpir: np.ndarray


def gallery_search(
    probes: ArrayLike,
    probe_ids: ArrayLike,
    galleries: Sequence[tuple[ArrayLike, ArrayLike]],
    *,
    ranks: Sequence[int] = (1, 5),
    fpirs: Sequence[float] = (0.01,),
    block: int = 4096,
    mesh: Mesh | None = None,
) -> GallerySearch:
    """1:N in two galleries of different people: IJB-B, IJB-C (mixed media) and IJB-S.

    Every probe is searched in every gallery; it is mated in the one that holds its
    identity and a false alarm at most in the other. The defaults are those of IJB-S,
    whose protocols differ in the galleries alone: Surveillance-to-Single has one still
    per person, -to-Booking all booking photos, -to-Surveillance templates of other
    videos.

    Args:
      probes: [P, D], such as pooled templates.
      probe_ids: int [P], subjects.
      galleries: (embeddings [N, D], subjects [N]) each, usually two.
      ranks: k >= 1 of rank-k.
      fpirs: of the open set, where a mate counts at whatever rank; () = closed set.
      block, mesh: of `search`.
    Raises: ValueError: no gallery; one without mates, or for the open set without
      strangers.
    """
    if not galleries:
        raise ValueError("gallery_search: there must be a gallery; got none.")
    rank, tpir = [], []
    for gallery, ids in galleries:
        k = min(max(ranks), len(ids))
        found = search(probes, probe_ids, gallery, ids, k=k, block=block, mesh=mesh)
        outcome = outcome_of_search(found, probe_ids)
        rank.append(rank_accuracy(outcome, ranks))
        if fpirs:
            tpir.append(open_set(outcome, fpirs).tpir[:, 0])
    return GallerySearch(np.mean(rank, 0), np.mean(tpir, 0) if fpirs else np.zeros(0))


def distractor_search(
    probes: ArrayLike,
    probe_ids: ArrayLike,
    gallery: ArrayLike,
    gallery_ids: ArrayLike,
    distractors: ArrayLike,
    *,
    ranks: Sequence[int] = (1, 5, 20),
    block: int = 4096,
    mesh: Mesh | None = None,
) -> np.ndarray:
    """TinyFace: rank-k of probes in a gallery swollen by strangers.

    A probe may have several mates; the best one counts.

    Args:
      probes, probe_ids, gallery, gallery_ids: as of `search`.
      distractors: [M, D].
      ranks: k >= 1.
      block, mesh: of `search`.
    Returns: float64 [R], over the probes with a mate.
    Raises: ValueError: no probe has a mate.
    """
    strangers = np.full(len(distractors), DISTRACTOR)
    parts = [(gallery, gallery_ids), (distractors, strangers)]
    k = min(max(ranks), len(gallery) + len(distractors))
    found = search(probes, probe_ids, parts, k=k, block=block, mesh=mesh)
    return rank_accuracy(outcome_of_search(found, probe_ids), ranks)


def million_distractors(
    embeddings: ArrayLike,
    ids: ArrayLike,
    distractors: ArrayLike | Iterable[ArrayLike],
    *,
    block: int = 4096,
    mesh: Mesh | None = None,
) -> float:
    """MegaFace, challenge 1: rank-1 with one mate at a time among the distractors.

    Every ordered pair of images of a person is a search: the second image joins the
    distractors and must score above all of them; a tie is a miss, and so is a score
    that is higher by round-off alone.

    Args:
      embeddings: [N, D], of the probe set.
      ids: int [N], identities; those with one image make no search.
      distractors: [M, D], or blocks of them where they do not fit in memory.
      block, mesh: of `search`.
    Raises: ValueError: no identity has two images.
    """
    ids = np.asarray(ids)
    probe, mate = np.nonzero((ids[:, None] == ids) & ~np.eye(len(ids), dtype=bool))
    if not len(probe):
        raise ValueError(
            "million_distractors: some identity must have two images; got "
            f"{len(ids)} images of {len(np.unique(ids))} identities."
        )
    if hasattr(distractors, "shape"):
        distractors = [distractors]
    parts = ((part, np.full(len(part), DISTRACTOR)) for part in distractors)
    found = search(embeddings, ids, parts, k=1, block=block, mesh=mesh)
    similarity = np.concatenate(list(stream_pair_similarity(embeddings, probe, mate)))
    return float((similarity > found.scores[probe, 0] + _ROUND_OFF).mean())
