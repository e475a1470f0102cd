"""Fingerprints of networks with their weights."""

import hashlib
from typing import Any

import jax
import numpy as np


def fingerprint_arrays(about: Any, arrays: Any) -> str:
    """SHA-256 of a description and of every array, in hexadecimal.

    Reads all arrays to the host. The order of dictionaries does not matter.

    Args:
      about: what the arrays belong to; its `repr` counts.
      arrays: a pytree.
    """
    digest = hashlib.sha256(repr(about).encode())
    leaves, _ = jax.tree_util.tree_flatten_with_path(arrays)
    named = {jax.tree_util.keystr(path): leaf for path, leaf in leaves}
    for path, leaf in sorted(named.items()):
        leaf = np.ascontiguousarray(leaf)
        digest.update(f"{path} {leaf.dtype} {leaf.shape}".encode())
        digest.update(leaf.tobytes())
    return digest.hexdigest()
