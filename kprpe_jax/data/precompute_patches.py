"""Compute a CNN's patch maps of faces once, for pair matching with a frozen CNN.

python -m kprpe_jax.data.precompute_patches --source lfw --name lfw_patches \\
    --data_dir data --weights mobilefacenet.npz
"""

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging

from kprpe_jax.data.face_patches import write_patches
from kprpe_jax.data.faces import open_faces
from kprpe_jax.data.feature_rows import choose_photos
from kprpe_jax.weights.patch_cnn import KINDS, PatchCnn, open_patch_cnn

_SOURCE = flags.DEFINE_string("source", None, "Data set of imported faces.")
_SPLIT = flags.DEFINE_string("split", "train", "Its split.")
_NAME = flags.DEFINE_string("name", None, "Data set to write.")
_DATA_DIR = flags.DEFINE_string("data_dir", "data", "Folder of all data sets.")
_BACKBONE = flags.DEFINE_enum("backbone", "mobilefacenet", KINDS, "CNN.")
_WEIGHTS = flags.DEFINE_string("weights", None, "File of its weights.")
_SIZE = flags.DEFINE_integer("size", 112, "Side of the photos in pixels.", 16)
_MIN_IMAGES = flags.DEFINE_integer("min_images", 1, "Leave out people with fewer.", 1)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "Images at once.", 1)


def patch_rows(
    cnn: PatchCnn, source: Sequence, *, batch_size: int
) -> Iterator[dict[str, Any]]:
    """Rows for `write_patches`, computed as they are read.

    Args:
      cnn: with weights.
      source: rows with `image` uint8 [H, W, 3] and `label`.
      batch_size: images at once.
    """
    variables = jax.jit(cnn.init)(jax.random.key(0))

    @jax.jit
    def embed(images):
        return cnn.embed(variables, images.astype(jnp.float32) / 127.5 - 1)

    for start in range(0, len(source), batch_size):
        rows = np.arange(start, min(start + batch_size, len(source)))
        read = source.__getitems__(rows)
        images = np.stack(
            [read[i]["image"] for i in np.resize(rows - start, batch_size)]
        )
        patches, embeddings = jax.device_get(embed(images))
        for row, patch, embedding in zip(read, patches, embeddings, strict=False):
            yield {
                "patches": patch.astype(np.float16),
                "embedding": embedding,
                "label": row["label"],
            }


def _precompute() -> str:
    size = (_SIZE.value, _SIZE.value)
    cnn = open_patch_cnn(_BACKBONE.value, _WEIGHTS.value, image_size=size)
    source = open_faces(_DATA_DIR.value, _SOURCE.value, _SPLIT.value, image_size=size)
    labels = source.labels()
    photos = choose_photos(labels, min_images=_MIN_IMAGES.value)
    if not photos.size:
        raise ValueError(
            f"precompute_patches: {_SOURCE.value} must hold people with at least "
            f"{_MIN_IMAGES.value} photos; got none; lower --min_images"
        )
    shapes = jax.eval_shape(
        cnn.embed, cnn.init(jax.random.key(0)), jnp.zeros((1, *size, 3))
    )
    path = write_patches(
        patch_rows(cnn, source.select(photos), batch_size=_BATCH_SIZE.value),
        name=_NAME.value,
        data_dir=_DATA_DIR.value,
        sizes=(*shapes[0].shape[1:], shapes[1].shape[1]),
        origin=dict(
            source=_SOURCE.value,
            split=_SPLIT.value,
            backbone=_BACKBONE.value,
            fingerprint=cnn.fingerprint,
        ),
    )
    people = len(np.unique(labels[photos]))
    return f"{_NAME.value}: {len(photos)} photos of {people} people; in {path}\n"


def main(argv: list[str]) -> None:
    """Precompute what the flags name and say where it is."""
    logging.set_verbosity(logging.WARNING)
    try:
        if argv[1:] or None in (_SOURCE.value, _NAME.value) or not _WEIGHTS.value:
            raise ValueError(
                "precompute_patches: give --source, --name and --weights; got "
                f"{argv[1:] or 'less'}; see --help"
            )
        sys.stdout.write(_precompute())
    except ValueError as e:
        sys.exit(f"error: {e}")


if __name__ == "__main__":
    app.run(main)
