"""Evaluation of set fusion: growing probes of held-out identities."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh
from ml_collections import ConfigDict

from kprpe_jax.core.features import take
from kprpe_jax.data.faces import open_faces
from kprpe_jax.data.features import (
    StoredFeatures,
    check_origin,
    collect,
    read_features,
    read_origin,
)
from kprpe_jax.evaluation.evaluators import Evaluator
from kprpe_jax.evaluation.feature_rows import clean_rows, degraded_rows
from kprpe_jax.evaluation.probe_sizes import probe_results, sample_probes
from kprpe_jax.fusion.aggregate import assignment_entropy
from kprpe_jax.fusion.cluster_aggregate import ClusterAggregate, ImageSets
from kprpe_jax.tasks import networks
from kprpe_jax.tasks.image_sets import SetData


class ProbeData(NamedTuple):
    """What a run says of its data and its network to every evaluator of probes.

    Attributes:
      config: of the run.
      model: of the fusion.
      data: of the run.
    """

    config: ConfigDict
    model: nn.Module
    data: SetData


def build(
    run: ProbeData,
    *,
    features: str,
    split: str = "train",
    identities: tuple = (),
    copies: int = 6,
    sizes: tuple = (16,),
    repeats: int = 8,
    batch_images: int = 256,
    entropy_sets: int = 64,
) -> Evaluator:
    """Build the evaluator `growing_probes`, of held-out identities.

    Each person's first clean photo is enrolled; degraded copies of the other photos are
    sampled for the probes, from people with enough of them. A backbone that is trained
    computes their features anew.

    Args:
      run: its data and its network.
      features: a data set that `embed` made.
      split, copies: where the backbone is trained: of data.name, and of each photo.
      identities: (first, last); () = all.
      sizes: images of a probe.
      repeats: probes of each person.
      batch_images: N'.
      entropy_sets: largest probes whose mean assignment entropy is computed.
    Returns: function (state, mesh) -> {metric: value}.
    Raises: ValueError, when it is run: features of another recognizer than training's.
    """
    config = run.config
    people = tuple(identities) or None
    stored: dict[str, StoredFeatures] = {}
    recomputed = run.data.recognizer is not None and config.train_backbone

    @jax.jit
    def entropy(variables: Any, sets: ImageSets) -> Array:
        assignment = run.model.apply(variables, sets, method="assignment")
        return assignment_entropy(assignment.map).mean()

    def read(state: Any, mesh: Mesh) -> dict[str, StoredFeatures]:
        if recomputed:
            return _embed_anew(run, split, people, copies, state, mesh)
        if not stored:
            origin = read_origin(config.data.dir, features)
            check_origin(origin, run.data.origin, features)
            for name in ("clean", "degraded"):
                stored[name] = read_features(
                    config.data.dir, features, name, identities=people
                )
        return stored

    def probes(state: Any, mesh: Mesh) -> dict[str, float]:
        rows = read(state, mesh)
        variables = networks.own_variables(state.params, state.collections, "fusion")
        largest = max(sizes)
        gallery, images = enroll(rows["clean"], rows["degraded"], size=largest)
        sampled = sample_probes(images.labels, size=largest, repeats=repeats, seed=0)
        results = probe_results(
            run.model,
            variables,
            images.features,
            sampled,
            gallery.features.embeddings,
            gallery.labels,
            sizes=sizes,
            fars=(1e-3,),
            batch_images=batch_images,
        )
        metrics = {f"rank1_{n}": r.rank1 for n, r in results.items()}
        metrics |= {f"tar_at_far_1e-3_{n}": float(r.tar[0]) for n, r in results.items()}
        if isinstance(run.model, ClusterAggregate):
            chosen = sampled.rows[:entropy_sets]
            sets = ImageSets(take(images.features, chosen), np.ones(chosen.shape, bool))
            metrics["entropy"] = float(entropy(variables, sets))
        return metrics

    return probes


def enroll(
    clean: StoredFeatures, degraded: StoredFeatures, *, size: int
) -> tuple[StoredFeatures, StoredFeatures]:
    """Split photos: the first of each person for the gallery, the others for probes.

    Args:
      clean, degraded: both splits of the same people, `photo` the same in both.
      size: probe images that a person must have.
    Returns: clean rows, one per person; degraded rows of other photos, of the people
      who have at least `size` of them.
    Raises: ValueError: no person has so many.
    """
    _, first = np.unique(clean.labels, return_index=True)
    gallery = clean.select(first)
    images = degraded.select(~np.isin(degraded.photos, gallery.photos))
    people, counts = np.unique(images.labels, return_counts=True)
    images = images.select(np.isin(images.labels, people[counts >= size]))
    if not len(images.labels):
        raise ValueError(
            f"enroll: someone must have {size} degraded photos besides the first; got "
            f"at most {counts.max(initial=0)}; precompute more copies, or take smaller "
            "evals.sizes"
        )
    return gallery, images


def _embed_anew(
    run: ProbeData,
    split: str,
    identities: tuple[int, int] | None,
    copies: int,
    state: Any,
    mesh: Mesh,
) -> dict[str, StoredFeatures]:
    """Features by the backbone as it is in a state."""
    data, recognizer = run.config.data, run.data.recognizer
    source = open_faces(
        data.dir,
        data.name,
        split,
        identities=identities,
        needs_keypoints=recognizer.uses_keypoints,
    )
    variables = networks.backbone_variables(state.params, state.collections)
    given = recognizer.replace(variables=variables), source, source.labels()
    options = dict(batch_size=run.config.evals.batch_size, mesh=mesh)
    clean = clean_rows(*given, mirror="sum", **options)
    degraded = degraded_rows(*given, copies=copies, **options)
    return {"clean": collect(list(clean)), "degraded": collect(list(degraded))}
