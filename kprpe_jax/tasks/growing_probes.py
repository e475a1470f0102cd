"""Evaluation of set fusion: growing probes of people whom training does not see."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh
from ml_collections import ConfigDict

from kprpe_jax.core.features import Features
from kprpe_jax.data.face_features import FeatureRows, collect, read_features
from kprpe_jax.data.faces import open_faces
from kprpe_jax.data.feature_rows import feature_rows
from kprpe_jax.evaluation.conditions import Evaluator
from kprpe_jax.evaluation.probe_sizes import draw_probes, probe_results
from kprpe_jax.fusion.aggregate import assignment_entropy
from kprpe_jax.fusion.cluster_aggregate import ClusterAggregate, ImageSets
from kprpe_jax.tasks.image_sets import SetData, backbone_variables
from kprpe_jax.weights.extractor import Extractor


def evaluators(
    config: ConfigDict,
    model: nn.Module,
    data: SetData,
    fusion_variables: Callable[[Any], Any],
) -> dict[str, Evaluator]:
    """Evaluator `probes`: growing probes of people whom training does not see.

    Reads evals: features (a data set of `data.precompute`), identities ((first, last),
    () = all), sizes, repeats (probes of each person), batch_images (N') and
    entropy_sets (largest probes whose mean assignment entropy is told). Each person's
    first clean photo is enrolled; degraded copies of the other photos are drawn for the
    probes, from people with enough of them. A backbone that is trained computes their
    features anew: then evals.features only tells the people, and data.name has the
    images.
    """
    evals = config.evals
    identities = tuple(evals.identities) or None
    stored: dict[str, FeatureRows] = {}

    @jax.jit
    def entropy(variables: Any, sets: ImageSets) -> Array:
        assignment = model.apply(variables, sets, method="assignment")
        return assignment_entropy(assignment.map).mean()

    def features(state: Any) -> dict[str, FeatureRows]:
        if data.extractor is not None and config.backbone.trained:
            return _embed_anew(config, data.extractor, state)
        if not stored:
            for split in ("clean", "degraded"):
                stored[split] = read_features(
                    config.data.dir, evals.features, split, identities=identities
                )
        return stored

    def probes(state: Any, mesh: Mesh) -> dict[str, float]:
        del mesh
        rows, variables = features(state), fusion_variables(state)
        gallery, images = enroll(rows["clean"], rows["degraded"], size=max(evals.sizes))
        drawn = draw_probes(
            images.labels, size=max(evals.sizes), repeats=evals.repeats, seed=0
        )
        results = probe_results(
            model,
            variables,
            Features(images.embeddings, style=images.statistics),
            drawn,
            gallery.embeddings,
            gallery.labels,
            sizes=evals.sizes,
            fars=(1e-3,),
            batch_images=evals.batch_images,
        )
        metrics = {f"rank1_{n}": r.rank1 for n, r in results.items()}
        metrics |= {f"tar_at_far_1e-3_{n}": float(r.tar[0]) for n, r in results.items()}
        if isinstance(model, ClusterAggregate):
            chosen = drawn.rows[: evals.entropy_sets]
            sets = ImageSets(
                Features(images.embeddings[chosen], style=images.statistics[chosen]),
                np.ones(chosen.shape, bool),
            )
            metrics["entropy"] = float(entropy(variables, sets))
        return metrics

    return {"probes": probes}


def enroll(
    clean: FeatureRows, degraded: FeatureRows, *, size: int
) -> tuple[FeatureRows, FeatureRows]:
    """Split photos: the first of each person for the gallery, the others for probes.

    Args:
      clean, degraded: both splits of the same people, `photo` the same in both.
      size: probe images that a person must have.
    Returns: clean rows, one per person; degraded rows of other photos, of the people
      who have at least `size` of them.
    Raises: ValueError: nobody has.
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
    config: ConfigDict, extractor: Extractor, state: Any
) -> dict[str, FeatureRows]:
    data, evals = config.data, config.evals
    source = open_faces(
        data.dir,
        data.name,
        evals.split,
        image_size=extractor.image_size,
        identities=tuple(evals.identities) or None,
    )
    rows = feature_rows(extractor, copies=evals.copies, batch_size=evals.batch_size)
    made = rows(backbone_variables(state.params, state.collections), source)
    return {split: collect(part) for split, part in made.items()}
