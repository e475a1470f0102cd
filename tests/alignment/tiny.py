"""Variables for tiny networks without compiling their initialization."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

TINY = dict(stem=2, width=8)


def random_variables(model: nn.Module, rng: np.random.Generator) -> dict[str, Any]:
    """Kernels of unit gain, small biases, statistics of 0 and 1."""
    images = jnp.zeros((1, 32, 32, 3))
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)

    def fill(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        name = path[-1].key
        if name == "kernel":
            scale = np.prod(leaf.shape[:-1]) ** -0.5
        else:
            scale = 0.1 if name == "bias" else 0.0
        start = float(name in ("scale", "var"))
        values = start + scale * rng.normal(size=leaf.shape)
        return values.astype(np.float32)

    return jax.tree_util.tree_map_with_path(fill, shapes)
