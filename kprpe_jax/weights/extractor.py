"""A pretrained backbone as set fusion sees it: images to embeddings and style."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kprpe_jax import registry
from kprpe_jax.core.features import style_statistics
from kprpe_jax.weights import import_weights

MOBILEFACENET_TAPS = ("stage1", "stage2", "stage3")
IRESNET_TAPS = ("stage2", "stage3")  # the paper's blocks 3 and 4
KINDS = (
    "mobilefacenet",
    *(name for name in registry.NETWORKS if name.startswith("iresnet")),
)


class Features(NamedTuple):
    """What fusion needs of images.

    Attributes:
      embeddings: float32 [B, D], not normalized.
      statistics: float32 [B, C, 2] of `style_statistics`.
    """

    embeddings: Array
    statistics: Array


class Extractor(NamedTuple):
    """A backbone with its weights.

    Attributes:
      kind: of KINDS.
      variables: of the backbone.
      extract: (variables, images [B, H, W, 3] in [-1, 1]) -> Features; running
        statistics are used, never collected.
      image_size: (H, W).
      fingerprint: text that changes with the weights and the taps.
    """

    kind: str
    variables: Any
    extract: Callable[[Any, Array], Features]
    image_size: tuple[int, int]
    fingerprint: str

    def sizes(self) -> tuple[int, int]:
        """D and C; nothing is computed."""
        images = jax.ShapeDtypeStruct((1, *self.image_size, 3), jnp.float32)
        features = jax.eval_shape(self.extract, self.variables, images)
        return features.embeddings.shape[1], features.statistics.shape[1]


def open_extractor(
    kind: str,
    weights: str | Path | Mapping[str, Any],
    *,
    taps: Sequence[str] = (),
) -> Extractor:
    """Build a backbone and read its weights.

    Args:
      kind: `mobilefacenet` (aligned 112 x 112 faces, of which it reads columns 8 to
        103), or a name of `interop.iresnet.OFFICIAL`.
      weights: as `load_state_dict` takes it.
      taps: feature maps that the style is taken from; () = MOBILEFACENET_TAPS or
        IRESNET_TAPS.
    Raises: ValueError: unknown kind or tap; weights of another network.
    """
    if kind not in KINDS:
        raise ValueError(
            f"open_extractor: unknown backbone {kind!r}; use one of {', '.join(KINDS)}."
        )
    if kind == "mobilefacenet":
        model, margin, last = registry.network(kind).make(), 8, "conv3"
        variables = import_weights(model, weights)
        taps = tuple(taps) or MOBILEFACENET_TAPS
    else:
        model, margin, last = registry.network(kind).make(), 0, "stage4"
        variables = import_weights(model, weights)
        taps = tuple(taps) or IRESNET_TAPS
    height, width = model.image_size
    spec = registry.network(kind).input_spec

    def extract(variables: Any, images: Array) -> Features:
        images, _ = spec.apply(images)
        maps = model.apply(variables, images, method="feature_maps")
        unknown = [tap for tap in taps if tap not in maps]
        if unknown:
            raise ValueError(
                f"open_extractor: {kind} has no tap {unknown[0]!r}; use some of "
                f"{', '.join(maps)}."
            )
        embeddings = model.apply(variables, maps[last], method="embed_map")
        return Features(embeddings, style_statistics([maps[tap] for tap in taps]))

    extractor = Extractor(
        kind,
        variables,
        extract,
        (height, width + 2 * margin),
        _fingerprint(kind, taps, variables),
    )
    extractor.sizes()  # traces it: unknown taps are refused here
    return extractor


def _fingerprint(kind: str, taps: Sequence[str], variables: Any) -> str:
    digest = hashlib.sha256(" ".join((kind, *taps)).encode())
    for array in jax.tree.leaves(variables):  # dicts give their leaves sorted by name
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]
