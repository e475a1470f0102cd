"""Published networks with their files."""

import os
from typing import Any

import flax.linen as nn

from kprpe_jax import registry
from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.core.paths import local_file
from kprpe_jax.weights import import_weights
from kprpe_jax.weights.model_folder import find_weights
from kprpe_jax.weights.recognizer_file import is_recognizer_file, read_recognizer
from kprpe_jax.weights.state_dict import load_state_dict


def read_published(
    name: str, path: str | os.PathLike, kind: str
) -> tuple[registry.PublishedNetwork, nn.Module, Any]:
    """Read the weights of a published network.

    Args:
      name: key of `registry.NETWORKS`.
      path: of its weights, also in a bucket, or a local folder of `model_folder`.
      kind: one of `published_networks.KINDS`.
    Returns: its entry, the network and its variables.
    Raises: ValueError: an unknown name, or of another kind; no such file, or one of
      other weights.
    """
    published = registry.network(name, kind)
    path = local_file(path)
    if not os.path.exists(path):
        raise ValueError(f"there is no file {path} for {name}; check the path.")
    if os.path.isdir(path):
        path = find_weights(path, name, published)
    source, fields = path, {}
    if published.fields_of:
        source = load_state_dict(path)
        fields = registry.resolve(published.fields_of)(source)
    module = published.make(**fields)
    return published, module, import_weights(module, source)


def published_recognizer(
    name: str, path: str | os.PathLike, *, style_maps: tuple[str, ...] = ()
) -> Recognizer:
    """A published recognizer with its weights, or with those of an exported file.

    Args:
      name: key of `registry.NETWORKS`, or an architecture, key of
        `registry.BACKBONES`, for a file that `export` wrote.
      path: of its weights.
      style_maps: of `Recognizer`.
    Raises: ValueError: as `read_published`; a file of another architecture.
    """
    path = local_file(path)
    if is_recognizer_file(path):
        recognizer = read_recognizer(path)
        registry.find(name, {**registry.NETWORKS, **registry.BACKBONES}, "backbone")
        if name in registry.BACKBONES:
            wanted = registry.resolve(registry.BACKBONES[name])
        else:
            wanted = type(registry.network(name, "recognizer").make())
        if not isinstance(recognizer.module, wanted):
            raise ValueError(
                f"{path} must hold a {name}; got a "
                f"{type(recognizer.module).__name__}; name its architecture or give "
                "another file."
            )
        return recognizer.replace(style_maps=tuple(style_maps or recognizer.style_maps))
    published, module, variables = read_published(name, path, "recognizer")
    return Recognizer(
        variables,
        module,
        published.input_spec,
        name,
        published.license,
        tuple(style_maps),
    )
