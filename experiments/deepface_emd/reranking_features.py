"""Recognizers and features behind `reranking`, kept on disk between runs."""

import pathlib
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jax import Array
from numpy.lib.format import open_memmap

from experiments.deepface_emd.reranking_photos import SIDE, Photos
from kprpe_jax.backbones.mobilefacenet import MobileFaceNet
from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.core.features import Features
from kprpe_jax.core.input_spec import to_unit_range
from kprpe_jax.data.importers.decode import decode_rgb
from kprpe_jax.matching.patch_weights import landmark_density
from kprpe_jax.recognizers import load_recognizer

# (rng, images [B, 112, 112, 3], keypoints) -> the same two
Change = Callable[[Array, Array, Array], tuple[Array, Array]]


class PhotoFeatures(NamedTuple):
    """Of N images.

    Attributes:
      faces: embeddings [N, D] and patches [N, P, C].
      pooled: float32 [N, C], a summary of the image as wide as a patch, which
        the embedding need not be: it takes its place in the CC weights.
      density: float32 [N, P], landmark density, for the LMK weights.
    """

    faces: Features
    pooled: np.ndarray
    density: np.ndarray


def load_photo_recognizer(spec: str) -> Recognizer:
    """Load a recognizer of photos of 112 x 112 pixels.

    Raises: ValueError: as `load_recognizer`; it reads images of another size.
    """
    recognizer = load_recognizer(spec)
    height, width = recognizer.image_size
    if height != SIDE or width > SIDE:
        raise ValueError(
            f"--model {spec}: the recognizer must read faces of {SIDE} x {SIDE} "
            f"pixels, or their middle columns; got {height} x {width}; take another."
        )
    return recognizer


def photo_features(
    recognizer: Recognizer, images: Array, keypoints: Array
) -> PhotoFeatures:
    """Features of photos [B, 112, 112, 3] in [-1, 1] with keypoints [B, 5, 2].

    `pooled` is the mean of the patches; of MobileFaceNet, the output of its global
    depthwise convolution.
    """
    found = recognizer.features(images, keypoints)
    pooled = found.patches.mean(1)
    if isinstance(recognizer.module, MobileFaceNet):
        maps = found.patches.reshape(len(images), *recognizer.grid, -1)
        pooled = recognizer.module.apply(
            recognizer.variables, maps, method=lambda model, x: model.pool(x, False)
        ).reshape(len(images), -1)
    density = landmark_density(found.keypoints, recognizer.grid)
    return PhotoFeatures(Features(found.embeddings, found.patches), pooled, density)


def claim_cache(cache: pathlib.Path, recognizer: Recognizer, photos: Photos) -> None:
    """Remember whose features a folder holds; make it where it is missing.

    Raises: ValueError: it holds those of another network or other photos.
    """
    owner = f"{recognizer.fingerprint} {len(photos.labels)} photos"
    cache.mkdir(parents=True, exist_ok=True)
    file = cache / "owner.txt"
    if not file.exists():
        file.write_text(owner)
    elif file.read_text() != owner:
        raise ValueError(
            f"claim_cache: {cache} must hold features of this recognizer and these "
            "photos; it holds others; choose another --output."
        )


def embed_photos(
    photos: Photos,
    recognizer: Recognizer,
    folder: pathlib.Path,
    change: Change | None = None,
    *,
    seed: int = 0,
    batch_size: int = 32,
) -> PhotoFeatures:
    """Features of photos as they are or changed, from `folder` where they are there.

    Args:
      photos: N of them.
      recognizer: embeds them.
      folder: of the cache; unfinished features are continued.
      change: what is done to the photos before.
      seed: of the change; what is done to a photo depends on its number alone.
      batch_size: B.
    """
    if not folder.exists():
        unfinished = folder.with_name(folder.name + ".unfinished")
        unfinished.mkdir(parents=True, exist_ok=True)
        _embed_to(photos, recognizer, unfinished, change, seed, batch_size)
        unfinished.rename(folder)
    names = ("embeddings", "patches", "pooled", "densities")
    read = [np.load(folder / f"{name}.npy", mmap_mode="r") for name in names]
    embeddings, patches, pooled, density = read
    return PhotoFeatures(Features(embeddings, patches), pooled, density)


def _embed_to(
    photos: Photos,
    recognizer: Recognizer,
    folder: pathlib.Path,
    change: Change | None,
    seed: int,
    batch_size: int,
) -> None:
    @jax.jit
    def embed(images: Array, keypoints: Array, numbers: Array) -> dict[str, Array]:
        images = to_unit_range(images)
        if change is not None:
            fold = partial(jax.random.fold_in, jax.random.key(seed))
            keys = jax.vmap(fold)(numbers)
            images, keypoints = jax.vmap(_one_by_one(change))(keys, images, keypoints)
        features = photo_features(recognizer, images, keypoints)
        return {
            "embeddings": features.faces.embeddings,
            "patches": features.faces.patches,
            "densities": features.density,
            "pooled": features.pooled,
        }

    count, progress = len(photos.encoded), folder / "done.txt"
    first = int(progress.read_text()) if progress.exists() else 0
    files: dict[str, np.memmap] = {}
    for start in range(first, count, batch_size):
        rows = np.minimum(np.arange(start, start + batch_size), count - 1)
        images = np.stack([decode_rgb(photos.encoded[row]) for row in rows])
        got = embed(images, photos.keypoints[rows], photos.numbers[rows])
        for name, values in got.items():
            if name not in files:
                shape, mode = (count, *values.shape[1:]), "r+" if first else "w+"
                files[name] = open_memmap(
                    folder / f"{name}.npy", mode, np.float32, shape
                )
            part = files[name][start : start + batch_size]
            part[:] = np.asarray(values)[: len(part)]
        new = progress.with_suffix(".new")  # a kill leaves the old or the new number
        new.write_text(str(start + batch_size))
        new.replace(progress)
    for file in files.values():
        file.flush()


def _one_by_one(change: Change) -> Callable:
    def one(rng: Array, image: Array, keypoints: Array) -> tuple[Array, Array]:
        images, points = change(rng, image[None], keypoints[None])
        return images[0], points[0]

    return one


def select(features: PhotoFeatures, rows: np.ndarray) -> PhotoFeatures:
    """Some rows, read into memory."""
    return jax.tree.map(lambda x: np.asarray(x[rows]), features)
