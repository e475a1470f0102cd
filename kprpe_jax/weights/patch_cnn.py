"""The CNN below a two-image network: images to patches and embeddings."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kprpe_jax import registry
from kprpe_jax.backbones.arcface_resnet import ArcFaceResNet
from kprpe_jax.backbones.mobilefacenet import MobileFaceNet
from kprpe_jax.weights import import_weights

KINDS = ("mobilefacenet", "arcface_resnet")
_MAPS = {"mobilefacenet": "conv3", "arcface_resnet": "patches"}
_STRIDE = 16  # pixels of a patch, of both


class PatchCnn(NamedTuple):
    """A CNN.

    Attributes:
      image_size: (height, width) of the aligned faces that it reads.
      grid: (rows, columns) of the patches.
      width: C.
      init: rng key -> variables: the published ones, or random ones without the layers
        behind the patches.
      patches: (variables, images [B, H, W, 3] in [-1, 1], rng, *, train) -> patches
        float32 [B, N, C] and the collections {name: tree} after batch statistics.
      embed: (variables, images) -> patches, and embeddings float32 [B, D].
      fingerprint: text that changes with the weights; empty without.
    """

    image_size: tuple[int, int]
    grid: tuple[int, int]
    width: int
    init: Callable[[Array], dict[str, Any]]
    patches: Callable[..., tuple[Array, dict[str, Any]]]
    embed: Callable[[Any, Array], tuple[Array, Array]]
    fingerprint: str


def open_patch_cnn(
    kind: str,
    weights: str | Path | Mapping[str, Any] = "",
    *,
    image_size: tuple[int, int],
) -> PatchCnn:
    """Build a CNN, with published weights or none.

    Args:
      kind: `mobilefacenet`, or `arcface_resnet`, the thesis' gray ResNet-18.
      weights: as `load_state_dict` takes it; "": random ones.
      image_size: (H, W) of the images; MobileFaceNet with published weights reads the
        columns 8 to 103 of 112 x 112.
    Raises: ValueError: unknown kind, sizes that do not fit, weights of another network.
    """
    if kind not in KINDS:
        raise ValueError(
            f"open_patch_cnn: unknown backbone {kind!r}; use one of {', '.join(KINDS)}."
        )
    margin, variables = 0, None
    if kind == "arcface_resnet":
        model = ArcFaceResNet(image_size=tuple(image_size))
    elif weights:
        model, margin = registry.network("mobilefacenet").make(), 8
    else:
        model = MobileFaceNet(image_size=tuple(image_size))
    height, width = model.image_size
    if tuple(image_size) != (height, width + 2 * margin) or height % _STRIDE:
        raise ValueError(
            f"open_patch_cnn: {kind} reads images of {height} x {width + 2 * margin} "
            f"with sides that are multiples of {_STRIDE}; got {tuple(image_size)}; "
            "change data.image_shape or the weights."
        )
    if weights:
        variables = import_weights(model, weights)
    return _bind(model, _MAPS[kind], variables, margin)


def _bind(
    model: ArcFaceResNet | MobileFaceNet,
    name: str,
    variables: dict[str, Any] | None,
    margin: int,
) -> PatchCnn:
    height, width = model.image_size

    def cut(images: Array) -> Array:
        if margin:
            return registry.network("mobilefacenet").input_spec.apply(images)[0]
        return images

    def init(rng: Array) -> dict[str, Any]:
        if variables is not None:
            return jax.tree.map(jnp.asarray, dict(variables))
        images = jnp.zeros((1, height, width, 3))
        return dict(model.init(rng, images, method="feature_maps"))

    def patches(variables, images, rng, *, train):
        maps, changed = model.apply(
            variables,
            cut(images),
            train=train,
            method="feature_maps",
            mutable=["batch_stats"],
            rngs={"dropout": rng},
        )
        return _flat(maps[name]), dict(changed)

    def embed(variables, images):
        maps = model.apply(variables, cut(images), method="feature_maps")[name]
        return _flat(maps), model.apply(variables, maps, method="embed_map")

    return PatchCnn(
        (height, width + 2 * margin),
        (height // _STRIDE, width // _STRIDE),
        512,
        init,
        patches,
        embed,
        _fingerprint(model, variables),
    )


def _flat(maps: Array) -> Array:
    return maps.reshape(len(maps), -1, maps.shape[-1]).astype(jnp.float32)


def _fingerprint(model: Any, variables: dict[str, Any] | None) -> str:
    if variables is None:
        return ""
    digest = hashlib.sha256(repr(model).encode())
    for array in jax.tree.leaves(variables):  # dicts give their leaves sorted by name
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]
