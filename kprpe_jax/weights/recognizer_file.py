"""A recognizer as one self-describing .safetensors file.

The file holds the variables; its metadata name the class of the network with its
fields, the input contract, the license and the fingerprint. Nothing in it is executed:
classes are looked up by name in a table.
"""

import json
import os
from typing import Any

import flax
import flax.linen as nn
from safetensors import SafetensorError, safe_open

from kprpe_jax import registry
from kprpe_jax.backbones.description import build, class_path, describe
from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.core.input_spec import InputSpec
from kprpe_jax.core.paths import local_file
from kprpe_jax.core.safetensors_file import check_safetensors_path, write_safetensors

KIND = "kprpe_jax recognizer"
CLASSES = {  # the networks that may be in a file
    **registry.BACKBONES,
    "aligned_backbone": "kprpe_jax.alignment.aligned_backbone:AlignedBackbone",
}


def save_recognizer(path: str | os.PathLike, recognizer: Recognizer) -> None:
    """Write a recognizer, in one move.

    Args:
      path: .safetensors file; its folder must exist.
      recognizer: any whose network is of CLASSES.
    Raises: ValueError: another ending, or a network of another class.
    """
    path = check_safetensors_path(path)
    _check_classes(recognizer.module)
    about = {
        "kind": KIND,
        "module": describe(recognizer.module),
        "input_spec": recognizer.input_spec._asdict(),
        "name": recognizer.name,
        "license": recognizer.license,
        "style_maps": recognizer.style_maps,
        "fingerprint": recognizer.fingerprint,
    }
    arrays = flax.traverse_util.flatten_dict(
        flax.core.unfreeze(recognizer.variables), sep="/"
    )
    metadata = {name: json.dumps(x) for name, x in about.items()}
    write_safetensors(path, arrays, metadata)


def is_recognizer_file(path: str | os.PathLike) -> bool:
    """Whether a file says that `save_recognizer` wrote it."""
    return _metadata(path).get("kind") == json.dumps(KIND)


def read_recognizer(path: str | os.PathLike) -> Recognizer:
    """Read a recognizer that `save_recognizer` wrote.

    Raises: ValueError: another file, or one that was changed or damaged.
    """
    path = local_file(path)
    if not is_recognizer_file(path):
        raise ValueError(
            f"{path} must be a recognizer written by `kprpe-jax export`; got another "
            "file."
        )
    try:
        about = {name: json.loads(x) for name, x in _metadata(path).items()}
        with safe_open(path, framework="np") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        recognizer = Recognizer(
            flax.traverse_util.unflatten_dict(arrays, sep="/"),
            build(about["module"], CLASSES.values()),
            InputSpec(**tuples(about["input_spec"])),
            about["name"],
            about["license"],
            tuples(about["style_maps"]),
        )
        fingerprint = recognizer.fingerprint
        whole = fingerprint == about["fingerprint"]
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is not readable as a recognizer: "
            f"{str(error).splitlines()[0][:160]}; export it again."
        ) from error
    if not whole:
        raise ValueError(
            f"{path} was changed after it was written: its fingerprint is {fingerprint}"
            f", and it says {about['fingerprint']}; export it again."
        )
    return recognizer


def _metadata(path: str | os.PathLike) -> dict[str, str]:
    try:
        with safe_open(path, framework="np") as file:
            return file.metadata() or {}
    except (OSError, SafetensorError):
        return {}


def _check_classes(module: nn.Module) -> None:
    for part in (module, getattr(module, "backbone", module)):
        if class_path(part) not in CLASSES.values():
            raise ValueError(
                f"export: networks are {', '.join(CLASSES)}; got a "
                f"{type(part).__name__}."
            )


def tuples(value: Any) -> Any:
    """Lists of JSON values as tuples, at any depth."""
    if isinstance(value, list):
        return tuple(map(tuples, value))
    if isinstance(value, dict):
        return {name: tuples(x) for name, x in value.items()}
    return value
