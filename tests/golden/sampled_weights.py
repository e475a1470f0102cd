"""Weights of cases that state how theirs are sampled instead of storing them."""

from typing import Any

import numpy as np


def draw_weights(meta: dict[str, Any]) -> dict[str, np.ndarray]:
    """The state dict of a case, by the `weight_rule` of its JSON."""
    rng, weights = np.random.default_rng(meta["weight_seed"]), {}
    for name, shape, kind, p, q in meta["weight_table"]:
        if kind == "normal":
            array = p + q * rng.standard_normal(shape)
        else:
            array = rng.uniform(p, q, shape)
        weights[name] = array.astype(np.float32)
        total = meta["weight_checks"][name]
        np.testing.assert_allclose(weights[name].sum(dtype=np.float64), total, 1e-6)
    return weights
