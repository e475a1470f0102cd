"""Compute a backbone's features of faces once, clean and degraded, for set fusion.

    python -m kprpe_jax.data.precompute --source lfw --name lfw_features \\
        --data_dir data --backbone mobilefacenet --weights mobilefacenet.npz

What is degraded, and how, depends on the seed, the photo and the copy alone.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging

from kprpe_jax.data.augmentation.recipe import Recipe, augment, make_recipe
from kprpe_jax.data.face_features import SPLITS, write_features
from kprpe_jax.data.faces import open_faces
from kprpe_jax.interop.extractor import KINDS, Extractor, open_extractor

# Crop, blur and photometric degradation as in the official precomputation, where they
# come together; the strength of the blur is ours. Without flips: `clean` has these.
DEGRADATION = dict(
    occlusion={"crop_prob": 0.3},
    blur={"prob": 0.95, "weights": (0.1, 0.2, 0.7), "side": (0.05, 0.4)},
    photometric={"prob": 0.5, "kind": "jitter"},
)

_SOURCE = flags.DEFINE_string("source", None, "Data set of imported faces.")
_SPLIT = flags.DEFINE_string("split", "train", "Its split.")
_NAME = flags.DEFINE_string("name", None, "Data set to write.")
_DATA_DIR = flags.DEFINE_string("data_dir", "data", "Folder of all data sets.")
_BACKBONE = flags.DEFINE_enum("backbone", "mobilefacenet", KINDS, "Backbone.")
_WEIGHTS = flags.DEFINE_string("weights", None, "File of its weights.")
_TAPS = flags.DEFINE_list("taps", [], "Maps for the style; default of the backbone.")
_COPIES = flags.DEFINE_integer("copies", 4, "Degraded copies of a photo.", 1)
_IDENTITIES = flags.DEFINE_list("identities", [], "first,last: labels first..last-1.")
_MIN_IMAGES = flags.DEFINE_integer("min_images", 1, "Leave out people with fewer.", 1)
_MAX_IMAGES = flags.DEFINE_integer("max_images", 0, "First photos of each; 0 = all.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the degradations.", 0)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Images at once.", 1)
flags.mark_flags_as_required(["source", "name", "weights"])


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


def _precompute() -> str:
    extractor = open_extractor(_BACKBONE.value, _WEIGHTS.value, taps=_TAPS.value)
    if len(_IDENTITIES.value) not in (0, 2):
        raise ValueError(
            "precompute: --identities must be first,last; got "
            f"{','.join(_IDENTITIES.value)}"
        )
    source = open_faces(
        _DATA_DIR.value,
        _SOURCE.value,
        _SPLIT.value,
        image_size=extractor.image_size,
    )
    labels = source.labels()
    if _IDENTITIES.value:
        first, last = map(int, _IDENTITIES.value)
        labels = np.where((labels >= first) & (labels < last), labels, -1)
    photos = choose_photos(
        labels, min_images=_MIN_IMAGES.value, max_images=_MAX_IMAGES.value
    )
    if not photos.size:
        raise ValueError(
            f"precompute: {_SOURCE.value} must hold people with at least "
            f"{_MIN_IMAGES.value} photos among the identities; got none; change these"
        )
    options = dict(copies=_COPIES.value, seed=_SEED.value)
    features = feature_rows(extractor, batch_size=_BATCH_SIZE.value, **options)
    rows = features(jax.device_put(extractor.variables), source.select(photos))
    origin = dict(
        source=_SOURCE.value,
        split=_SPLIT.value,
        backbone=extractor.kind,
        fingerprint=extractor.fingerprint,
        photos=len(photos),
        identities=len(np.unique(labels[photos])),
        **options,
    )
    path = write_features(
        rows,
        name=_NAME.value,
        data_dir=_DATA_DIR.value,
        sizes=extractor.sizes(),
        origin=origin,
    )
    return (
        f"{_NAME.value}: {origin['photos']} photos of {origin['identities']} people, "
        f"{_COPIES.value} degraded copies each; in {path}\n"
    )


def main(argv: list[str]) -> None:
    """Precompute what the flags name and say where it is."""
    logging.set_verbosity(logging.WARNING)
    try:
        if argv[1:]:
            raise ValueError(
                f"precompute: everything is given by flags; got {argv[1:]}; see --help"
            )
        sys.stdout.write(_precompute())
    except ValueError as e:
        sys.exit(f"error: {e}")


if __name__ == "__main__":
    app.run(main)
