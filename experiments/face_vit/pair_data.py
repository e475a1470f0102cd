"""Data behind `pair_matching`: held-out people, altered photos, the first stage."""

import io
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from experiments.deepface_emd.reranking_features import embed_photos
from experiments.deepface_emd.reranking_photos import Photos
from experiments.face_vit.pair_networks import Images
from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.core.features import Features
from kprpe_jax.data.importers.decode import decode_rgb
from kprpe_jax.evaluation.altered import ALTERATIONS
from kprpe_jax.evaluation.pairs import Pairs, sample_pairs
from kprpe_jax.matching.nearest import Ranking
from kprpe_jax.matching.two_stage import first_stage

KINDS = ("plain", "mask", "sunglasses", "crop")


class Test(NamedTuple):
    """Photos of held-out identities, altered and ranked.

    Attributes:
      gallery: all their photos.
      pairs: rows of the gallery; the first photo of each is altered.
      queries: rows of the gallery that are altered and searched for.
      firsts, asked: kind -> the photos of `pairs.first`, and of `queries`, altered.
      ranked: kind -> the first stage of `queries`, by C.
    """

    gallery: Images
    pairs: Pairs
    queries: np.ndarray
    firsts: dict[str, Images]
    asked: dict[str, Images]
    ranked: dict[str, Ranking]


def alter(photos: Photos, kind: str) -> Photos:
    """Alter photos, as files; the alteration depends on their numbers."""
    if kind == "plain":
        return photos

    @jax.jit
    def change(image, points, number):
        key = jax.random.fold_in(jax.random.key(0), number)
        changed, _ = ALTERATIONS[kind](key, image[None] / 127.5 - 1, points[None])
        return jnp.clip(jnp.round((changed[0] + 1) * 127.5), 0, 255).astype(jnp.uint8)

    encoded = []
    for file, points, number in zip(*photos[:2], photos.numbers, strict=True):
        pixels = change(decode_rgb(file).astype(np.float32), points, number)
        written = io.BytesIO()
        Image.fromarray(np.asarray(pixels)).save(written, "png", compress_level=1)
        encoded.append(written.getvalue())
    return photos._replace(encoded=encoded)


def embed_images(
    photos: Photos, recognizer: Recognizer, folder: pathlib.Path
) -> Images:
    """Photos with the CNN's features, from `folder` where they are there."""
    faces = embed_photos(photos, recognizer, folder).faces
    pixels = np.stack([decode_rgb(file) for file in photos.encoded])
    embeddings, patches = (np.array(x) for x in (faces.embeddings, faces.patches))
    return Images(pixels, photos.keypoints, photos.labels, embeddings, patches)


def prepare(
    photos: Photos,
    recognizer: Recognizer,
    cache: pathlib.Path,
    *,
    kinds: Sequence[str],
    num_pairs: int,
    num_queries: int,
) -> tuple[Images, Test]:
    """Split the people in two, alter the photos of the second half and rank them by C.

    Args:
      photos: labels are 0 .. people - 1.
      recognizer: the frozen CNN.
      cache: folder of features.
      kinds: of KINDS.
      num_pairs, num_queries: sampled with seed 0.
    Returns: the training photos, and the test of the other people.
    Raises: ValueError: an unknown kind; too few people (`sample_pairs`).
    """
    unknown = sorted(set(kinds) - set(KINDS))
    if unknown:
        raise ValueError(
            f"pair_matching: unknown queries {unknown[0]!r}; use some of {KINDS}."
        )
    everyone = embed_images(photos, recognizer, cache / "features_plain")
    half = (int(photos.labels.max()) + 1) // 2
    rows = np.flatnonzero(photos.labels >= half)
    tested, gallery = photos.select(rows), everyone.select(rows)
    gallery = gallery._replace(labels=gallery.labels - half)
    pairs = sample_pairs(gallery.labels, count=num_pairs, seed=0)
    queries = np.random.default_rng(0).permutation(len(rows))[:num_queries]

    def altered(which: np.ndarray, kind: str, name: str) -> Images:
        if kind == "plain":
            return gallery.select(which)
        folder = cache / f"features_{name}_{len(which)}_{kind}"
        images = embed_images(alter(tested.select(which), kind), recognizer, folder)
        return images._replace(labels=gallery.labels[which])

    firsts = {kind: altered(pairs.first, kind, "pairs") for kind in kinds}
    asked = {kind: altered(queries, kind, "queries") for kind in kinds}
    ranks = int(np.bincount(gallery.labels).max()) + 101
    ranked = {
        kind: first_stage(
            Features(images.embeddings, None),
            Features(gallery.embeddings, None),
            ranks=min(ranks, len(rows)),
        )
        for kind, images in asked.items()
    }
    train = everyone.select(np.flatnonzero(photos.labels < half))
    return train, Test(gallery, pairs, queries, firsts, asked, ranked)
