"""Rules of ProxyFusion."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from kprpe_jax.core.features import Features
from kprpe_jax.fusion.cluster_aggregate import ImageSets
from kprpe_jax.fusion.proxy_fusion import ProxyFusion
from kprpe_jax.weights import rules as table
from kprpe_jax.weights.rules import Rule, WeightLayout

_LAYERS = {0: "experts_0", 3: "experts_1", 6: "experts_2"}  # place in `pooler`


def proxy_fusion_layout(
    model: ProxyFusion, arrays: Mapping[str, np.ndarray]
) -> WeightLayout:
    """Layout of a ProxyFusion; both sides are in one file."""
    features = Features(jnp.zeros((1, 1, model.embed_dim)))
    sets = ImageSets(features, jnp.ones((1, 1), bool))
    shapes = table.variable_shapes(model, sets)
    rules = [
        Rule("proxies_p", "params/proxies_probe"),
        Rule("proxies_g", "params/proxies_gallery"),
        *table.linear("transform", "select"),
        *table.linear("probe_linear", "probe_linear"),
    ]
    for expert in range(model.num_proxies):
        for place, layer in _LAYERS.items():
            rules += table.linear(f"pooler.{expert}.{place}", layer, (expert,))
    return WeightLayout(rules, shapes, arrays)
