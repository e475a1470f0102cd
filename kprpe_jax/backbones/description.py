"""A network's class and fields as JSON values, and back."""

import dataclasses
import importlib
from collections.abc import Collection
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from kprpe_jax.backbones.program_network import ProgramNetwork

# Fields that are not part of what a network computes.
_LEFT_OUT = ("name", "parent", "sharding")


def class_path(module: nn.Module) -> str:
    """The class of a module, "module:class"."""
    return f"{type(module).__module__}:{type(module).__name__}"


def describe(value: Any) -> Any:
    """A module, or one of its fields, as JSON values.

    Args:
      value: a module, number, text, None, tuple, mapping or dtype.
    """
    if isinstance(value, ProgramNetwork):
        return value.description
    if isinstance(value, nn.Module):
        fields = {
            field.name: describe(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if field.name not in _LEFT_OUT
        }
        return {"class": class_path(value), "fields": fields}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple | list):
        return [describe(x) for x in value]
    if hasattr(value, "items"):
        return {"dict": {name: describe(x) for name, x in value.items()}}
    return {"dtype": jnp.dtype(value).name}


def build(description: Any, classes: Collection[str]) -> Any:
    """The inverse of `describe`; lists become tuples.

    Args:
      description: of `describe`.
      classes: those that may be built, as `class_path` gives them; nothing else is
        imported.
    Raises: ValueError: another class.
    """
    if isinstance(description, list):
        return tuple(build(x, classes) for x in description)
    if not isinstance(description, dict):
        return description
    if "dict" in description:
        return {name: build(x, classes) for name, x in description["dict"].items()}
    if "dtype" in description:
        return jnp.dtype(description["dtype"])
    path = description["class"]
    if path not in classes:
        raise ValueError(f"unknown class {path!r}")
    module, _, name = path.partition(":")
    fields = {name: build(x, classes) for name, x in description["fields"].items()}
    return getattr(importlib.import_module(module), name)(**fields)
