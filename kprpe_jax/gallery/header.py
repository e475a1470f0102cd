"""What a gallery says of itself, and what is put in and taken out."""

from typing import NamedTuple

import numpy as np

from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.core.features import Features
from kprpe_jax.core.input_spec import InputSpec


class GalleryHeader(NamedTuple):
    """What all features of a gallery were made with.

    Attributes:
      name: of the recognizer, in words.
      fingerprint: of its weights.
      license: one line about the weights; "" = unknown.
      input_spec: the recognizer's input contract.
      embed_dim: D.
      grid: (rows, columns) of patches.
      channels: C, of a patch.
      num_keypoints: K, kept beside the patches.
      patches: how they are kept, of `packing.KINDS`.
    """

    name: str
    fingerprint: str
    license: str
    input_spec: InputSpec
    embed_dim: int
    grid: tuple[int, int]
    channels: int
    num_keypoints: int = 5
    patches: str = "bfloat16"


class GalleryEntry(NamedTuple):
    """One photo to add, or a video whose frames are one.

    Attributes:
      person: name.
      photo: name, the only one of its kind in the gallery: "person/file".
      digest: hexadecimal, of the file.
      features: of one image: embeddings float32 [D], patches [N, C], keypoints [K, 2].
      num_images: how many images the features are of.
    """

    person: str
    photo: str
    digest: str
    features: Features
    num_images: int = 1


class GalleryContents(NamedTuple):
    """All photos of a gallery, in the order in which they were added.

    Attributes:
      people: G names.
      photos: G names.
      num_images: int64 [G], how many images each is of.
      features: embeddings float32 [G, D], read; patches [G, N, C] and keypoints
        [G, K, 2], read when they are indexed, None where the gallery keeps none.
    """

    people: list[str]
    photos: list[str]
    num_images: np.ndarray
    features: Features


def describe_gallery(
    recognizer: Recognizer, patches: str = "bfloat16"
) -> GalleryHeader:
    """What a gallery of this recognizer says about itself.

    Args:
      recognizer: the network with its weights.
      patches: how patches are kept, of `packing.KINDS`.
    """
    shapes = recognizer.shapes()
    return GalleryHeader(
        recognizer.name,
        recognizer.fingerprint,
        recognizer.license,
        recognizer.input_spec,
        shapes.embeddings.shape[-1],
        tuple(recognizer.grid),
        shapes.patches.shape[-1],
        patches=patches,
    )
