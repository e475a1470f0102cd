"""Write .safetensors files in one move."""

import os
from collections.abc import Mapping

import numpy as np
from safetensors.numpy import save

from kprpe_jax.core.paths import AnyPath, as_path, write_bytes


def check_safetensors_path(path: str | os.PathLike) -> AnyPath:
    """Raise ValueError unless a path ends with .safetensors."""
    path = as_path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"--output {path}: must end with .safetensors.")
    return path


def write_safetensors(
    path: AnyPath, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Write arrays and texts to a file that is there whole or not at all.

    Args:
      path: of the file; its folder must exist.
      arrays: by name; written in C order, scalars stay scalars.
      metadata: texts by name.
    """
    ordered = {name: np.array(x, order="C") for name, x in arrays.items()}
    write_bytes(path, save(ordered, dict(metadata)))
