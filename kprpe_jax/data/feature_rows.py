"""A backbone's features of faces, clean and degraded, as rows for set fusion."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kprpe_jax.augmentation.recipe import Recipe, augment, make_recipe
from kprpe_jax.data.face_features import SPLITS
from kprpe_jax.weights.extractor import Extractor

# Crop, blur and photometric degradation as in the official precomputation, where they
# come together; the strength of the blur is ours. Without flips: `clean` has these.
DEGRADATION = dict(
    occlusion={"crop_prob": 0.3},
    blur={"prob": 0.95, "weights": (0.1, 0.2, 0.7), "side": (0.05, 0.4)},
    photometric={"prob": 0.5, "kind": "jitter"},
)


def degradation() -> Recipe:
    """The recipe of the degraded copies."""
    return make_recipe("none", **DEGRADATION)


def choose_photos(
    labels: np.ndarray, *, min_images: int = 1, max_images: int = 0
) -> np.ndarray:
    """Rows of the people with at least `min_images`, of each the first `max_images`.

    Args:
      labels: int [N]; rows < 0 are nobody's.
      min_images, max_images: per person; max_images 0 = all.
    Returns: int [M], rising.
    """
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[order], prepend=labels.min() - 1))
    groups = np.split(order, starts[1:])
    chosen = [
        rows[: max_images or None]
        for rows in groups
        if labels[rows[0]] >= 0 and len(rows) >= min_images
    ]
    return np.sort(np.concatenate([np.zeros(0, int), *chosen]))


def feature_rows(
    extractor: Extractor,
    *,
    copies: int,
    seed: int = 0,
    batch_size: int = 64,
    recipe: Recipe | None = None,
) -> Callable[[Any, Sequence], dict[str, Iterator[dict[str, Any]]]]:
    """Compile a backbone: images to the rows of `face_features`.

    Args:
      extractor: the backbone.
      copies: degraded copies of each photo.
      seed: of the degradations.
      batch_size: images at once.
      recipe: of the degradations; None = `degradation()`.
    Returns: (variables of the backbone, rows with `image` uint8 [H, W, 3] and `label`)
      -> split -> its rows, computed as they are read.
    """
    recipe = degradation() if recipe is None else recipe

    @jax.jit
    def clean(variables, images):
        images = images.astype(jnp.float32) / 127.5 - 1
        features = extractor.extract(variables, images)
        mirrored = extractor.extract(variables, images[:, :, ::-1])
        return features._replace(embeddings=features.embeddings + mirrored.embeddings)

    @jax.jit
    def degraded(variables, images, photos, copy):
        key = jax.random.fold_in(jax.random.key(seed), copy)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, photos)
        nothing = jnp.zeros((len(images), 0, 2))
        return extractor.extract(variables, augment(keys, images, nothing, recipe)[0])

    def rows(split: str, variables: Any, source: Sequence) -> Iterator[dict[str, Any]]:
        for start in range(0, len(source), batch_size):
            photos = np.arange(start, min(start + batch_size, len(source)))
            read = source.__getitems__(photos)
            padded = np.resize(photos, batch_size)
            images = np.stack([read[i - start]["image"] for i in padded])
            if split == "clean":
                outputs = [clean(variables, images)]
            else:
                outputs = [
                    degraded(variables, images, padded, copy) for copy in range(copies)
                ]
            outputs = jax.device_get(outputs)
            for place, photo in enumerate(photos):
                for features in outputs:
                    yield {
                        "embedding": features.embeddings[place],
                        "statistics": features.statistics[place],
                        "label": read[place]["label"],
                        "photo": np.int32(photo),
                    }

    return lambda variables, source: {
        split: rows(split, variables, source) for split in SPLITS
    }
