"""Templates by set fusion: every method through one interface.

What comes out goes into `protocols.template_verification` and `gallery_search` like the
templates of `pool_templates`.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from kprpe_jax.core.checks import finite
from kprpe_jax.core.features import Features, take
from kprpe_jax.core.unit import direction
from kprpe_jax.evaluation.templates import Templates
from kprpe_jax.fusion.stream import BATCH_IMAGES, ImageRows, fuse_rows

_ROWS = 4096  # of a part


def fuse_templates(
    model: nn.Module,
    variables: Any,
    features: Features,
    templates: ArrayLike,
    *,
    batch_images: int = BATCH_IMAGES,
    order_seed: int | None = None,
) -> Templates:
    """Fuse the images of each template.

    Args:
      model: `ClusterAggregate`, `WeightedFusion`, or another with their functions.
      variables: of the model, in evaluation.
      features: of N images: embeddings [N, D], not normalized; style [N, C, 2] or None.
      templates: int [N], template of each image.
      batch_images: N', images of a template that see each other at once.
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
    parts = (order[n : n + _ROWS] for n in range(0, len(order), _ROWS))
    rows = (ImageRows(templates[part], take(features, part)) for part in parts)
    ids = np.unique(templates)
    fused = fuse_rows(model, variables, rows, batch_images=batch_images)
    return sum_media(fused, ids, ids)


def sum_media(
    fused: Iterable[tuple[np.ndarray, np.ndarray]],
    sets: np.ndarray,
    templates: np.ndarray,
) -> Templates:
    """Templates of the fused sets that they consist of, as these are complete.

    Args:
      fused: sets int [k] and embeddings float32 [k, D], from `fuse_rows`.
      sets: int [M], ascending, all that will come.
      templates: int [M], template of each set; the sum of its sets is its embedding.
    """
    ids, place = np.unique(templates, return_inverse=True)
    total = None
    for done, embeddings in fused:
        if total is None:
            total = np.zeros((len(ids), embeddings.shape[1]), np.float32)
        np.add.at(total, place[np.searchsorted(sets, done)], embeddings)
    return Templates(ids, np.asarray(direction(jnp.asarray(total))))
