"""A folder that CVLface published: weights, and a file that says of which network."""

import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from kprpe_jax.published_networks import PublishedNetwork

WEIGHTS = ("model.safetensors", "model.pt")
CONFIGS = ("model.yaml", "config.json")
_PLACES = ("", "pretrained_model")
_MOST = 1 << 20  # bytes of a config


def find_weights(
    folder: str | os.PathLike, name: str, published: PublishedNetwork
) -> pathlib.Path:
    """The weights of a folder, whose config must be of the network that is named.

    Compared are the size, the color order, the image's size and the number of
    keypoints, as far as the config says them.

    Args:
      folder: with one of WEIGHTS and one of CONFIGS, or with such a folder
        `pretrained_model`.
      name: key of `registry.NETWORKS`.
      published: its entry.
    Raises: ValueError: no such file; a config that cannot be read, or is of another
      network.
    """
    places = [pathlib.Path(folder) / place for place in _PLACES]
    weights = _first(places, WEIGHTS, "weights", folder)
    config = _first([weights.parent, places[0]], CONFIGS, "a config", folder)
    told = _read(config)
    for field, got, want in _facts(told, published):
        if got != want:
            raise ValueError(
                f"{config}: is of a network whose {field} is {got}, that of {name} is "
                f"{want}; name the network that the folder is of."
            )
    return weights


def _first(
    places: list[pathlib.Path],
    names: tuple[str, ...],
    what: str,
    folder: str | os.PathLike,
) -> pathlib.Path:
    """The first of these files that is there."""
    for path in (place / name for place in places for name in names):
        if path.is_file():
            return path
    raise ValueError(
        f"{os.fspath(folder)}: a folder must hold {what}, {' or '.join(names)}; name "
        "the file of the weights instead."
    )


def _read(path: pathlib.Path) -> Mapping[str, Any]:
    """What a config says, as data."""
    import yaml

    try:
        if path.stat().st_size > _MOST:
            raise ValueError("it is too large")
        text = path.read_text(encoding="utf-8")
        told = yaml.safe_load(text) if path.suffix == ".yaml" else json.loads(text)
        if isinstance(told, Mapping):  # transformers nests it
            told = told.get("conf", told)
        if not isinstance(told, Mapping):
            raise ValueError("it holds no fields")
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise ValueError(
            f"{path}: must say of which network the weights are ({reason}); repair it, "
            "or name the file of the weights."
        ) from error
    return told


def _facts(
    told: Mapping[str, Any], published: PublishedNetwork
) -> Iterator[tuple[str, Any, Any]]:
    """Facts with what the config says and what the network needs."""
    spec = published.input_spec
    if "name" in told:
        yield "size", str(told["name"]), published.size
    if spec is None:
        return
    if "color_space" in told:
        yield "color order", str(told["color_space"]).lower(), spec.color
    if "input_size" in told:
        yield "image", str(told["input_size"]), str([3, *spec.image_size])
    position = told.get("rpe_config")
    if isinstance(position, Mapping):
        yield "keypoints", position.get("num_keypoints", 0), spec.num_keypoints
