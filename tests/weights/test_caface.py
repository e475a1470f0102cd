import jax
import numpy as np
import pytest

from kprpe_jax.weights import check_weights, export_weights, import_weights
from tests.fusion.tiny import draw_sets, draw_variables, tiny_model


@pytest.fixture
def model():
    return tiny_model("official")


@pytest.mark.parametrize("copies", [False, True])
def test_round_trip(model, rng, copies):
    variables = draw_variables(model, rng)
    weights = export_weights(model, variables)
    if copies:
        weights["style_maker.cfcs.0"] = weights["style_maker.cfc"]
    wrapped = {f"module.{name}": array for name, array in weights.items()}
    again = import_weights(model, wrapped)
    jax.tree.map(np.testing.assert_array_equal, again, variables)
    jax.eval_shape(model.apply, again, draw_sets(rng, 3))


def test_wrong_weights_are_described(model, rng):
    weights = export_weights(model, draw_variables(model, rng))
    broken = dict(weights)
    token = "fusion_net.clustering_layer.group_token"
    broken[token] = broken[token][:, :2]
    with pytest.raises(
        ValueError, match=r"group_token \(got \[1, 2, 8\], needs \[1, 3"
    ):
        check_weights(model, broken)
    for name, wrong in (
        ("style_maker.cfcs.0", weights["style_maker.cfc"] + 1),
        ("norm_emb.pe", np.zeros((61, 4), np.float32)),
        ("norm_emb.pe", np.zeros((61, 6), np.float32)),
    ):
        with pytest.raises(
            ValueError, match=f"{name} of this ClusterAggregate must be"
        ):
            import_weights(model, {**weights, name: wrong})
    with pytest.raises(ValueError, match="official options; got norm_scale=False"):
        check_weights(tiny_model("paper"), weights)
