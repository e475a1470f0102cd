"""Official CAFace weights in and out of `ClusterAggregate`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kprpe_jax.core.features import Features
from kprpe_jax.fusion.cluster_aggregate import VARIANTS, ClusterAggregate, ImageSets
from kprpe_jax.fusion.norm_embedding import CLIP, STEPS, sinusoid_table
from kprpe_jax.weights import rules as table
from kprpe_jax.weights.rules import Rule
from kprpe_jax.weights.state_dict import load_state_dict

OFFICIAL = {
    "caface_g4_conf512": dict(num_clusters=4, per_channel=True),
    "caface_g2_conf1": dict(num_clusters=2, per_channel=False),
}
STYLE_CHANNELS = 384  # stages 2 and 3 of an iResNet, 128 + 256
_ALIAS, _TABLE = "style_maker.cfcs.0", "norm_emb.pe"


def official_caface(name: str, **fields: Any) -> ClusterAggregate:
    """Model of released weights.

    Args:
      name: key of OFFICIAL.
      fields: further fields of ClusterAggregate.
    Raises: ValueError: unknown name.
    """
    if name not in OFFICIAL:
        raise ValueError(
            f"official_caface: unknown network {name!r}; use one of "
            f"{', '.join(OFFICIAL)}."
        )
    return ClusterAggregate(**{**VARIANTS["official"], **OFFICIAL[name], **fields})


def import_weights(
    model: ClusterAggregate | str,
    source: str | Path | Mapping[str, Any],
    *,
    style_channels: int = STYLE_CHANNELS,
) -> dict[str, Any]:
    """Official weights as variables of `ClusterAggregate`.

    Args:
      model: with the official options, or a name that `official_caface` knows.
      source: as `load_state_dict` takes it.
      style_channels: C of the style statistics.
    Returns: `params` and `batch_stats`, float32 NumPy arrays.
    Raises: ValueError: lists every missing, surplus and misshapen name; or the second
      copy of W_s and the table of sinusoids are not what they have to be.
    """
    weights = load_state_dict(source)
    plan = _plan(model, style_channels)
    variables = table.import_state_dict(_once(weights), **plan)
    for name, want in _copies(table.export_state_dict(variables, plan["rules"]), model):
        got = weights.get(name, want)
        if got.shape != want.shape or np.abs(got - want).max() > 1e-4:
            raise ValueError(
                f"import_weights: {name} of {plan['network']} must be what the other "
                f"weights say; got {got.shape} with other values for {want.shape}; "
                "these weights are of another network."
            )
    return variables


def check_weights(
    model: ClusterAggregate | str,
    source: str | Path | Mapping[str, Any],
    *,
    style_channels: int = STYLE_CHANNELS,
) -> None:
    """Raise what `import_weights` would raise about names and shapes."""
    weights = _once(load_state_dict(source))
    table.check_state_dict(weights, **_plan(model, style_channels))


def export_weights(
    model: ClusterAggregate | str, variables: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Variables, or gradients, under their official names and shapes.

    What official files hold twice or need not hold is left out: `style_maker.cfcs.0`
    and `norm_emb.pe`.
    """
    channels = variables["params"]["style_maker"]["weight"].shape[0]
    return table.export_state_dict(variables, _plan(model, channels)["rules"])


def caface_rules(model: ClusterAggregate) -> list[Rule]:
    """Rules for all official aggregators."""
    fusion, clustering = "fusion_net", "fusion_net.clustering_layer"
    final = f"{clustering}.cluster_block"
    rules = [
        Rule("style_maker.cfc", "params/style_maker/weight"),
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
        rules += table.norm(f"{theirs}.norm1", f"{ours}/norm1")
        rules += table.norm(f"{theirs}.norm2", f"{ours}/norm2")
        rules += table.linear(f"{theirs}.attn.qkv", f"{ours}/attention/qkv")
        rules += table.linear(f"{theirs}.attn.proj", f"{ours}/attention/proj")
        for layer in ("fc1", "fc2"):
            rules += table.linear(f"{theirs}.mlp.{layer}", f"{ours}/mlp/{layer}")
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


def _once(weights: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in weights.items() if k not in (_ALIAS, _TABLE)}


def _copies(
    weights: Mapping[str, np.ndarray], model: ClusterAggregate | str
) -> list[tuple[str, np.ndarray]]:
    """What official files say a second time."""
    dim = (official_caface(model) if isinstance(model, str) else model).norm_dim
    positions = np.arange(2 * CLIP * STEPS + 1)
    return [
        (_ALIAS, weights["style_maker.cfc"]),
        (_TABLE, sinusoid_table(positions, dim)),
    ]


def _plan(model: ClusterAggregate | str, style_channels: int) -> dict[str, Any]:
    network = model if isinstance(model, str) else "this ClusterAggregate"
    if isinstance(model, str):
        model = official_caface(model)
    if not model.norm_scale or model.style_activation != "prelu":
        raise ValueError(
            "import_weights: official weights need a model with the official options; "
            f"got norm_scale={model.norm_scale} and style_activation="
            f"{model.style_activation!r}; take VARIANTS['official']."
        )
    features = Features(
        jnp.zeros((1, 1, model.embed_dim)), style=jnp.zeros((1, 1, style_channels, 2))
    )
    sets = ImageSets(features, jnp.ones((1, 1), bool))
    shapes = table.flat_shapes(jax.eval_shape(model.init, jax.random.key(0), sets))
    return dict(rules=caface_rules(model), shapes=shapes, network=network)
