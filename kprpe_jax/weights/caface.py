"""Rules of the official CAFace aggregators."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from kprpe_jax.core.features import Features
from kprpe_jax.fusion.cluster_aggregate import ClusterAggregate, ImageSets
from kprpe_jax.fusion.norm_embedding import CLIP, STEPS, sinusoid_table
from kprpe_jax.weights import rules as table
from kprpe_jax.weights.rules import Rule, WeightLayout

STYLE_CHANNELS = 384  # stages 2 and 3 of an iResNet, 128 + 256
_STYLE, _ALIAS = "style_maker.cfc", "style_maker.cfcs.0"
_TABLE = "norm_emb.pe"


def caface_layout(
    model: ClusterAggregate, arrays: Mapping[str, np.ndarray]
) -> WeightLayout:
    """Layout of a `ClusterAggregate` with the official options.

    The file says how many style channels there are. It holds the weights W_s twice and
    the table of sinusoids, which must be what they have to be.

    Raises: ValueError: options that no official weights are made for.
    """
    if not model.norm_scale or model.style_activation != "prelu":
        raise ValueError(
            "official weights need a model with the official options; "
            f"got norm_scale={model.norm_scale} and style_activation="
            f"{model.style_activation!r}; take VARIANTS['official']."
        )
    channels = len(arrays[_STYLE]) if _STYLE in arrays else STYLE_CHANNELS
    features = Features(
        jnp.zeros((1, 1, model.embed_dim)), style=jnp.zeros((1, 1, channels, 2))
    )
    sets = ImageSets(features, jnp.ones((1, 1), bool))
    positions = np.arange(2 * CLIP * STEPS + 1)
    needed = {
        _ALIAS: arrays.get(_STYLE),
        _TABLE: np.asarray(sinusoid_table(positions, model.norm_dim)),
    }
    return WeightLayout(
        _rules(model),
        table.variable_shapes(model, sets),
        {name: array for name, array in arrays.items() if name not in needed},
        {name: (arrays[name], needed[name]) for name in needed if name in arrays},
    )


def _rules(model: ClusterAggregate) -> list[Rule]:
    """Rules for all official aggregators."""
    fusion, clustering = "fusion_net", "fusion_net.clustering_layer"
    final = f"{clustering}.cluster_block"
    rules = [
        Rule(_STYLE, "params/style_maker/weight"),
        Rule("style_maker.relu.weight", "params/style_maker/slope", shape=(1,)),
        *table.linear("style_maker.linear", "style_maker/linear"),
        *table.batch_norm("style_maker.bn", "style_maker/norm"),
        Rule("norm_emb.scale", "params/norm_embedding/scale"),
        *table.batch_norm("norm_emb.norm_bn", "norm_embedding/norm")[2:],
        Rule(
            f"{clustering}.group_token",
            "params/centers",
            shape=(1, model.num_clusters, model.style_dim + model.norm_dim),
        ),
        *table.norm(f"{final}.norm_tokens", "cluster/query_norm"),
        *table.norm(f"{final}.norm_x", "cluster/key_norm"),
        *table.linear(f"{final}.assign.q_proj", "cluster/query"),
        *table.linear(f"{final}.assign.k_proj", "cluster/key"),
    ]
    for n in range(model.depth):
        theirs, ours = f"{clustering}.blocks.{n}", f"cluster/block{n}"
        rules += table.transformer_block(theirs, ours, qkv_bias=True)
    for n in range(model.mixer_depth):
        theirs, ours = f"{fusion}.conf_mlp.{n}", f"aggregation/block{n}"
        rules.append(Rule(f"{theirs}.skip_connect_gate", f"params/{ours}/gate"))
        rules += table.norm(f"{theirs}.ln", f"{ours}/norm")
        for layer in ("fc1", "fc2"):
            for part, mlp in (("tokens", "clusters"), ("channels", "channels")):
                source = f"{theirs}.{part}_mlp_block.{layer}"
                rules += table.linear(source, f"{ours}/{mlp}/{layer}")
    for layer in ("fc1", "fc2"):
        source = f"{fusion}.conf_mlp.{model.mixer_depth}.{layer}"
        rules += table.linear(source, f"aggregation/{layer}")
    return rules
