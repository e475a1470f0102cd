"""How recognition grows with the number of images of a probe.

Source: Cluster and Aggregate, Fig. 1c and Supp. H; the protocol is ours.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np

from kprpe_jax.core.features import Features, take
from kprpe_jax.evaluation.fused_templates import fuse_templates
from kprpe_jax.evaluation.roc import roc_curve, tar_at_far


class Probes(NamedTuple):
    """Nested probes: the first n images of each are its probe of n images.

    Attributes:
      rows: int [P, S], of the images.
      labels: int [P].
    """

    rows: np.ndarray
    labels: np.ndarray


def sample_probes(labels: np.ndarray, *, size: int, repeats: int, seed: int) -> Probes:
    """Sample probes without repeated images, several of each person.

    Args:
      labels: int [N], of the images.
      size: S, images of the largest probe.
      repeats: probes of each person.
      seed: the same gives the same probes.
    Raises: ValueError: a person has fewer images.
    """
    people, counts = np.unique(labels, return_counts=True)
    if counts.min() < size:
        raise ValueError(
            f"sample_probes: everyone must have {size} images; got {counts.min()} of "
            f"person {people[counts.argmin()]}; sample smaller probes"
        )
    rng = np.random.default_rng(seed)
    rows = [
        rng.permutation(np.flatnonzero(labels == person))[:size]
        for person in people
        for _ in range(repeats)
    ]
    return Probes(np.stack(rows), np.repeat(people, repeats))


class ProbeResult(NamedTuple):
    """Numbers of the probes of one size.

    Attributes:
      rank1: share of probes whose most alike gallery row is their own.
      tar: float64 [F], at the wanted FARs, over all pairs of probe and gallery row.
    """

    rank1: float
    tar: np.ndarray


def probe_results(
    model: nn.Module,
    variables: Any,
    features: Features,
    probes: Probes,
    gallery: np.ndarray,
    gallery_labels: np.ndarray,
    *,
    sizes: Sequence[int],
    fars: Sequence[float] = (1e-4, 1e-3),
    batch_images: int = 256,
    order_seed: int | None = None,
) -> dict[int, ProbeResult]:
    """Fuse probes of each size and search them.

    Args:
      model, variables, batch_images, order_seed: of `fuse_templates`.
      features: of the N images; their embeddings and style are read.
      probes: of these images.
      gallery: [G, D], one row per person, compared by cosine.
      gallery_labels: int [G], all different.
      sizes: images of a probe, up to S.
      fars: wanted, in [0, 1].
    Raises: ValueError: a person without gallery row, a size above S.
    """
    if max(sizes) > probes.rows.shape[1]:
        raise ValueError(
            f"probe_results: sizes must be at most {probes.rows.shape[1]}, the images "
            f"of a probe; got {max(sizes)}; sample larger probes"
        )
    same = probes.labels[:, None] == gallery_labels
    if not same.any(1).all():
        strangers = np.unique(probes.labels[~same.any(1)])
        raise ValueError(
            "probe_results: everyone must have a gallery row; got none for "
            f"{strangers[:5].tolist()}; enroll them"
        )
    unit_gallery = gallery / np.maximum(
        np.linalg.norm(gallery, axis=-1, keepdims=True), 1e-12
    )
    results = {}
    for size in sizes:
        rows = probes.rows[:, :size]
        fused = fuse_templates(
            model,
            variables,
            take(features, rows.ravel()),
            np.repeat(np.arange(len(rows)), size),
            batch_images=batch_images,
            order_seed=order_seed,
        )
        scores = fused.unit_embeddings @ unit_gallery.T
        own = np.where(same, scores, -np.inf).max(1)
        others = np.where(same, -np.inf, scores).max(1)
        tar = tar_at_far(roc_curve(scores.ravel(), same.ravel()), fars).tar
        results[size] = ProbeResult(float((own > others).mean()), tar)
    return results
