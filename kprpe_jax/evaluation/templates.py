"""Templates: many images of one person become one embedding.

Source: the IJB-B and IJB-C protocols; images of one medium (a video, or one photo) are
averaged first, so that a long video does not outweigh a photo.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from kprpe_jax.core.checks import finite
from kprpe_jax.core.unit import direction

WEIGHTS = ("norm", "equal")


class Templates(NamedTuple):
    """Pooled templates.

    Attributes:
      ids: int [T], ascending.
      unit_embeddings: float32 [T, D]; zero where a template's images cancel out.
    """

    ids: np.ndarray
    unit_embeddings: np.ndarray


def pool_templates(
    embeddings: ArrayLike,
    templates: ArrayLike,
    *,
    media: ArrayLike | None = None,
    weights: str = "norm",
    quality: ArrayLike | None = None,
) -> Templates:
    """Pool the images of each template.

    The official IJB settings are norm and detector score (`norm`, scores given), norm
    only (`norm`), detector score only (`equal`, scores given); Eq. 18 of KP-RPE is
    `equal` with the quality d F of `landmark_score`.

    Args:
      embeddings: [N, D], of images; not normalized.
      templates: int [N], template of each image.
      media: int [N], medium of each image, counted within its template: the mean of
        each medium, then their sum; None = plain mean over the images.
      weights: `norm`: an image with a larger norm weighs more (Eq. 16); `equal`: all
        are made unit vectors first.
      quality: [N], further factor of each image, such as the detector's score.
    Raises: ValueError: lengths differ, no images, values that are not finite, unknown
      `weights`.
    """
    embeddings = finite("pool_templates", embeddings)
    templates = np.asarray(templates)
    media = np.arange(len(templates)) if media is None else np.asarray(media)
    given = [templates, media] + ([] if quality is None else [np.asarray(quality)])
    if not len(embeddings) or any(x.shape != (len(embeddings),) for x in given):
        raise ValueError(
            "pool_templates: templates, media and quality must give one value per "
            f"image and there must be images; got {[x.shape for x in given]} for "
            f"{len(embeddings)} images."
        )
    if weights not in WEIGHTS:
        raise ValueError(
            f"pool_templates: unknown weights {weights!r}; use one of {WEIGHTS}."
        )
    features = jnp.asarray(embeddings, jnp.float32)
    if weights == "equal":
        features = direction(features)
    if quality is not None:
        features = features * finite("pool_templates", quality)[:, None]

    pairs, medium = np.unique(
        np.stack([templates, media], -1), axis=0, return_inverse=True
    )
    ids, template = np.unique(pairs[:, 0], return_inverse=True)
    size = np.bincount(medium.ravel())
    means = jax.ops.segment_sum(features, medium.ravel(), len(pairs)) / size[:, None]
    pooled = direction(jax.ops.segment_sum(means, template, len(ids)))
    return Templates(ids, np.asarray(pooled))


def template_rows(ids: ArrayLike, wanted: ArrayLike) -> np.ndarray:
    """Rows of templates, for pairs and galleries that name them by id.

    Args:
      ids: int [T], ascending, of `Templates`.
      wanted: int [...].
    Returns: int [...], rows of `ids`.
    Raises: ValueError: names the wanted templates that have no image.
    """
    ids, wanted = np.asarray(ids), np.asarray(wanted)
    rows = np.minimum(np.searchsorted(ids, wanted), max(len(ids) - 1, 0))
    unknown = np.unique(wanted[ids[rows] != wanted]) if len(ids) else np.unique(wanted)
    if unknown.size:
        raise ValueError(
            f"template_rows: every template must have an image; got {unknown.size} "
            f"without one, such as {unknown[:5].tolist()}; embed their images or leave "
            "them out of the protocol."
        )
    return rows
