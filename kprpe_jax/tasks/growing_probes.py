"""Evaluation of set fusion: growing probes of held-out identities."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh
from ml_collections import ConfigDict

from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.core.features import take
from kprpe_jax.data.faces import open_faces, stored_size
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
from kprpe_jax.tasks.image_sets import SetData, backbone_variables


class ProbeData(NamedTuple):
    """What a run says of its data and its network to every evaluator of probes.

    Attributes:
      config: of the run.
      model: of the fusion.
      data: of the run.
      fusion_variables: state -> variables of the model.
    """

    config: ConfigDict
    model: nn.Module
    data: SetData
    fusion_variables: Callable[[Any], Any]


def build(
    data: ProbeData,
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
      data: of the run.
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
    evals = ConfigDict(
        dict(
            features=features,
            split=split,
            identities=identities,
            copies=copies,
            sizes=sizes,
            repeats=repeats,
            batch_images=batch_images,
            entropy_sets=entropy_sets,
        )
    )
    return _probes(data.config, evals, data.model, data.data, data.fusion_variables)


def _probes(
    config: ConfigDict,
    evals: ConfigDict,
    model: nn.Module,
    data: SetData,
    fusion_variables: Callable[[Any], Any],
) -> Evaluator:
    """The evaluator of one section."""
    identities = tuple(evals.identities) or None
    stored: dict[str, StoredFeatures] = {}
    recomputed = data.recognizer is not None and config.train_backbone

    @jax.jit
    def entropy(variables: Any, sets: ImageSets) -> Array:
        assignment = model.apply(variables, sets, method="assignment")
        return assignment_entropy(assignment.map).mean()

    def features(state: Any, mesh: Mesh) -> dict[str, StoredFeatures]:
        if recomputed:
            return _embed_anew(config, evals, data.recognizer, state, mesh)
        if not stored:
            origin = read_origin(config.data.dir, evals.features)
            check_origin(origin, data.origin, evals.features)
            for split in ("clean", "degraded"):
                stored[split] = read_features(
                    config.data.dir, evals.features, split, identities=identities
                )
        return stored

    def probes(state: Any, mesh: Mesh) -> dict[str, float]:
        rows, variables = features(state, mesh), fusion_variables(state)
        gallery, images = enroll(rows["clean"], rows["degraded"], size=max(evals.sizes))
        sampled = sample_probes(
            images.labels, size=max(evals.sizes), repeats=evals.repeats, seed=0
        )
        results = probe_results(
            model,
            variables,
            images.features,
            sampled,
            gallery.features.embeddings,
            gallery.labels,
            sizes=evals.sizes,
            fars=(1e-3,),
            batch_images=evals.batch_images,
        )
        metrics = {f"rank1_{n}": r.rank1 for n, r in results.items()}
        metrics |= {f"tar_at_far_1e-3_{n}": float(r.tar[0]) for n, r in results.items()}
        if isinstance(model, ClusterAggregate):
            chosen = sampled.rows[: evals.entropy_sets]
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
    config: ConfigDict,
    evals: ConfigDict,
    recognizer: Recognizer,
    state: Any,
    mesh: Mesh,
) -> dict[str, StoredFeatures]:
    data = config.data
    source = open_faces(
        data.dir,
        data.name,
        evals.split,
        image_size=stored_size(data.dir, data.name, evals.split),
        identities=tuple(evals.identities) or None,
        needs_keypoints=recognizer.uses_keypoints,
    )
    variables = backbone_variables(state.params, state.collections)
    given = recognizer.replace(variables=variables), source, source.labels()
    options = dict(batch_size=config.evals.batch_size, mesh=mesh)
    return {
        "clean": collect(list(clean_rows(*given, mirror="sum", **options))),
        "degraded": collect(
            list(degraded_rows(*given, copies=evals.copies, **options))
        ),
    }
