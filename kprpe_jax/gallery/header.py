"""What a gallery says of itself, and what is put in and taken out."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.core.features import Features
from kprpe_jax.core.input_spec import InputSpec


class NetworkSource(NamedTuple):
    """A network that a gallery was made with, and where it was loaded from.

    Attributes:
      name: in words.
      fingerprint: of its weights and options.
      spec: as it was given; "" = unknown, it must be named again.
      resolved: the spec with the absolute path of its file or run.
      options: further arguments with which it was loaded.
    """

    name: str
    fingerprint: str
    spec: str = ""
    resolved: str = ""
    options: Mapping[str, Any] = {}


class GalleryHeader(NamedTuple):
    """What all features of a gallery were made with.

    Attributes:
      recognizer: whose features these are.
      license: one line about its weights; "" = unknown.
      input_spec: its input contract.
      embed_dim: D.
      grid: (rows, columns) of patches.
      channels: C, of a patch.
      num_keypoints: K, kept beside the patches.
      patches: how they are kept, of `packing.KINDS`.
      detector: what detected the faces; None = photos were aligned faces.
      fusion: what made one entry of several images; None = the mean of the unit
        embeddings, of a video alone.
    """

    recognizer: NetworkSource
    license: str
    input_spec: InputSpec
    embed_dim: int
    grid: tuple[int, int]
    channels: int
    num_keypoints: int = 5
    patches: str = "bfloat16"
    detector: NetworkSource | None = None
    fusion: NetworkSource | None = None

    def record(self) -> dict[str, Any]:
        """As JSON has it; `read_header_record` reads it."""
        nested = ("recognizer", "input_spec", "detector", "fusion")
        values = self._asdict()
        return {
            name: x._asdict() if name in nested and x is not None else x
            for name, x in values.items()
        }


class GalleryEntry(NamedTuple):
    """One photo to add, or several images whose features are one.

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
      metadata: of the people who have any: name -> keys and values.
    """

    people: list[str]
    photos: list[str]
    num_images: np.ndarray
    features: Features
    metadata: Mapping[str, Mapping[str, str]]


def describe_gallery(
    recognizer: Recognizer,
    patches: str = "bfloat16",
    *,
    source: NetworkSource | None = None,
    detector: NetworkSource | None = None,
    fusion: NetworkSource | None = None,
) -> GalleryHeader:
    """What a gallery of this recognizer says about itself.

    Args:
      recognizer: the network with its weights.
      patches: how patches are kept, of `packing.KINDS`.
      source: where the recognizer was loaded from; None = unknown.
      detector, fusion: of `GalleryHeader`.
    """
    shapes = recognizer.shapes()
    return GalleryHeader(
        source or NetworkSource(recognizer.name, recognizer.fingerprint),
        recognizer.license,
        recognizer.input_spec,
        shapes.embeddings.shape[-1],
        tuple(recognizer.grid),
        shapes.patches.shape[-1],
        patches=patches,
        detector=detector,
        fusion=fusion,
    )


def read_header_record(record: Mapping[str, Any]) -> GalleryHeader:
    """Read `GalleryHeader.record`, of formats 2 and 3.

    Raises: TypeError: a record of something else.
    """
    values = dict(record)
    if "recognizer" not in values:  # format 2 knew no more of it
        names = "name", "fingerprint"
        values["recognizer"] = {name: values.pop(name, "") for name in names}
    for name in ("recognizer", "detector", "fusion"):
        if values.get(name) is not None:
            values[name] = NetworkSource(**values[name])
    spec = InputSpec(**values["input_spec"])
    values["input_spec"] = spec._replace(image_size=tuple(spec.image_size))
    values["grid"] = tuple(values["grid"])
    return GalleryHeader(**values)
