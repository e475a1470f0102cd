"""Templates by set fusion: every method through one interface.

What comes out goes into `protocols.template_verification` and `gallery_search` like the
templates of `pool_templates`.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.typing import ArrayLike

from kprpe_jax.core.checks import finite
from kprpe_jax.core.features import Features, take
from kprpe_jax.core.unit import unit
from kprpe_jax.evaluation.templates import Templates
from kprpe_jax.fusion.cluster_aggregate import ImageSets


def fuse_templates(
    model: nn.Module,
    variables: Any,
    features: Features,
    templates: ArrayLike,
    *,
    batch_images: int = 256,
    batch_sets: int = 32,
    order_seed: int | None = None,
) -> Templates:
    """Fuse the images of each template, in batches of a stream.

    Besides the images, one batch of sets is in use, however large a template is.

    Args:
      model: `ClusterAggregate`, `WeightedFusion`, or another with their functions.
      variables: of the model, in evaluation.
      features: of N images: embeddings [N, D], not normalized; style [N, C, 2] or None.
      templates: int [N], template of each image.
      batch_images: N', images of a template that see each other at once.
      batch_sets: templates at once.
      order_seed: shuffles the images of each template; None = in the given order.
    Raises: ValueError: lengths differ, no images, values that are not finite; sizes
      that do not fit the model.
    """
    features = jax.tree.map(
        partial(finite, "fuse_templates"), Features(features[0], style=features.style)
    )
    templates = np.asarray(templates)
    lengths = [len(x) for x in (*jax.tree.leaves(features), templates)]
    if not len(templates) or len(set(lengths)) > 1 or templates.ndim != 1:
        raise ValueError(
            "fuse_templates: embeddings, style and templates must give one row per "
            f"image and there must be images; got {lengths}."
        )
    order = np.arange(len(templates))
    if order_seed is not None:
        order = np.random.default_rng(order_seed).permutation(order)
    order = order[np.argsort(templates[order], kind="stable")]
    ids, starts, counts = np.unique(
        templates[order], return_index=True, return_counts=True
    )
    fused = np.empty((len(ids), features.embeddings.shape[1]), np.float32)
    by_size = np.argsort(counts, kind="stable")  # sets of like size share a batch
    for begin in range(0, len(ids), batch_sets):
        chosen = by_size[begin : begin + batch_sets]
        missing = batch_sets - len(chosen)
        first = np.pad(starts[chosen], (0, missing))
        count = np.pad(counts[chosen], (0, missing))
        state = model.init_state(batch_sets)
        for done in range(0, count.max(), batch_images):
            width = _padded(min(count.max() - done, batch_images), batch_images)
            place = done + np.arange(width)
            mask = place < count[:, None]
            rows = order[np.where(mask, first[:, None] + place, 0)]
            sets = ImageSets(take(features, rows), mask)
            state = _update(model, variables, state, sets)
        fused[chosen] = _finalize(model, variables, state)[: len(chosen)]
    return Templates(ids, fused)


def _padded(size: int, largest: int) -> int:
    """The next power of 4, so that few programs serve all sizes."""
    padded = 1
    while padded < size:
        padded *= 4
    return min(padded, largest)


@partial(jax.jit, static_argnums=0, donate_argnums=2)
def _update(model: nn.Module, variables: Any, state: Any, sets: ImageSets) -> Any:
    return model.apply(variables, state, sets, method="update")


@partial(jax.jit, static_argnums=0)
def _finalize(model: nn.Module, variables: Any, state: Any) -> jax.Array:
    return unit(model.apply(variables, state, method="finalize").embeddings)
