"""Which network looks at the faces of a gallery, and its fingerprint."""

import hashlib
import os
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from ml_collections import ConfigDict

from kprpe_jax import registry
from kprpe_jax.core.features import Features
from kprpe_jax.gallery.trained_run import one_device, restore_run
from kprpe_jax.tasks import networks
from kprpe_jax.tasks.recognition import backbone_collections
from kprpe_jax.tasks.recognition import init as recognition_init
from kprpe_jax.training.sharding import flatten_with_paths
from kprpe_jax.weights import import_weights


class Encoder(NamedTuple):
    """A network with its weights.

    Attributes:
      name: what it is, in words.
      fingerprint: hexadecimal, of the architecture and every weight: embeddings of two
        encoders may be compared only where it is the same.
      image_size: (height, width) of the aligned faces that it reads.
      grid: (rows, columns) of the patches.
      embed: images [B, H, W, 3] in [-1, 1] and keypoints [B, 5, 2] -> Features with
        embeddings [B, D] and patches [B, N, C], float32; compiled by the caller.
    """

    name: str
    fingerprint: str
    image_size: tuple[int, int]
    grid: tuple[int, int]
    embed: Callable[[Array, Array], Features]


def mobilefacenet_encoder(weights: str | os.PathLike) -> Encoder:
    """MobileFaceNet with published weights: 112 x 96 faces, 7 x 6 patches of 512.

    Raises: ValueError: no such file, or other weights.
    """
    if not os.path.isfile(weights):
        raise ValueError(
            f"mobilefacenet_encoder: {os.fspath(weights)} is not a file; name the "
            "weights of MobileFaceNet."
        )
    model = registry.network("mobilefacenet").make()
    variables = import_weights(model, weights)

    def embed(images: Array, keypoints: Array) -> Features:
        del keypoints
        images, _ = registry.network("mobilefacenet").input_spec.apply(images)
        maps = model.apply(variables, images, method="feature_maps")["conv3"]
        embeddings = model.apply(variables, maps, method="embed_map")
        return Features(embeddings, _patches(maps))

    size = model.image_size
    return Encoder(
        "mobilefacenet",
        fingerprint(repr(model), variables),
        size,
        (size[0] // 16, size[1] // 16),
        embed,
    )


def run_encoder(
    config: ConfigDict, workdir: str | os.PathLike, *, checkpoint: int | str = "best"
) -> Encoder:
    """The backbone of a face recognition run.

    Patches are the tokens of a ViT, or the last map of an iResNet or a MobileFaceNet.

    Args:
      config: of the run.
      workdir: its folder.
      checkpoint: a step, "last" or "best".
    Raises: ValueError: a run of another task or network, no such checkpoint.
    """
    if config.task != "face_recognition":
        raise ValueError(
            "run_encoder: config.task must be face_recognition; got "
            f"{config.task!r}; give the config of a run on faces."
        )
    model = networks.make_network(config, one_device())
    spec = networks.input_spec(config, model)
    read, size = spec.arguments, spec.image_size
    examples = networks.example_inputs(spec, 1)
    init = partial(recognition_init, config, one_device(), model, examples)
    state = restore_run(config, workdir, init, checkpoint=checkpoint)
    own = backbone_collections(state.collections)
    variables = {"params": state.params["backbone"], **own}

    def embed(images: Array, keypoints: Array) -> Features:
        inputs = read(images, keypoints)
        features = model.apply(variables, *inputs, method="features")
        return Features(features.embeddings, features.patches)

    return Encoder(
        f"{config.backbone} of {os.path.basename(os.path.abspath(workdir))}",
        fingerprint(f"{config.backbone} {config.model.to_json()}", variables),
        size,
        model.grid,
        embed,
    )


def fingerprint(architecture: str, variables: dict[str, Any]) -> str:
    """SHA-256 of an architecture in words and of all arrays, in hexadecimal."""
    digest = hashlib.sha256(architecture.encode())
    for path, leaf in sorted(flatten_with_paths(variables).items()):
        leaf = np.ascontiguousarray(leaf)
        digest.update(f"{path} {leaf.dtype} {leaf.shape}".encode())
        digest.update(leaf.tobytes())
    return digest.hexdigest()


def _patches(maps: Array) -> Array:
    return maps.reshape(len(maps), -1, maps.shape[-1]).astype(jnp.float32)
