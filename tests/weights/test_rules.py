import numpy as np
import pytest

from kprpe_jax.weights.rules import (
    Rule,
    batch_norm,
    check_state_dict,
    conv,
    export_state_dict,
    import_state_dict,
    linear,
)

SHAPES = {
    "params/conv/kernel": (3, 2, 4, 5),
    "params/norm/scale": (5,),
    "params/norm/bias": (5,),
    "batch_stats/norm/mean": (5,),
    "batch_stats/norm/var": (5,),
    "params/blocks/kernel": (2, 4, 6),
    "params/blocks/bias": (2, 6),
    "params/table": (3, 2, 2),
    "params/position": (4, 3),
}
RULES = [
    *conv("stem.0", "conv", bias=False),
    *batch_norm("stem.1", "norm"),
    *linear("layers.0", "blocks", (0,)),
    *linear("layers.1", "blocks", (1,)),
    Rule("table", "params/table", axes=(1, 0), shape=(4, 3)),
    Rule("top", "params/position", index=(slice(0, 1),)),
    Rule("rest", "params/position", index=(slice(1, 4),)),
]
OFFICIAL = {
    "stem.0.weight": (5, 4, 3, 2),
    "stem.1.weight": (5,),
    "stem.1.bias": (5,),
    "stem.1.running_mean": (5,),
    "stem.1.running_var": (5,),
    "layers.0.weight": (6, 4),
    "layers.0.bias": (6,),
    "layers.1.weight": (6, 4),
    "layers.1.bias": (6,),
    "table": (4, 3),
    "top": (1, 3),
    "rest": (3, 3),
}


@pytest.fixture
def weights(rng):
    arrays = {k: rng.normal(size=s).astype(np.float32) for k, s in OFFICIAL.items()}
    return arrays | {"stem.1.num_batches_tracked": np.array(3)}


def test_every_array_lands_in_its_place(weights):
    got = import_state_dict(weights, RULES, SHAPES, network="toy")
    params, stats = got["params"], got["batch_stats"]
    w = weights["stem.0.weight"]
    assert params["conv"]["kernel"][2, 1, 3, 4] == w[4, 3, 2, 1]
    np.testing.assert_array_equal(params["norm"]["scale"], weights["stem.1.weight"])
    np.testing.assert_array_equal(stats["norm"]["var"], weights["stem.1.running_var"])
    for n in (0, 1):
        kernel, bias = (params["blocks"][name][n] for name in ("kernel", "bias"))
        np.testing.assert_array_equal(kernel, weights[f"layers.{n}.weight"].T)
        np.testing.assert_array_equal(bias, weights[f"layers.{n}.bias"])
    # Output number 2 * first + second of the official layer.
    assert params["table"][2, 1, 0] == weights["table"][2, 2]
    np.testing.assert_array_equal(params["position"][1:], weights["rest"])


def test_export_is_the_inverse(weights):
    variables = import_state_dict(weights, RULES, SHAPES, network="toy")
    back = export_state_dict(variables, RULES)
    assert set(back) == set(OFFICIAL)
    for name, array in back.items():
        np.testing.assert_array_equal(array, weights[name])


def test_all_faults_stand_in_one_error(weights):
    del weights["table"], weights["layers.1.bias"]
    weights["head.weight"] = np.ones(1)
    weights["top"] = np.ones((3, 1))
    weights["stem.0.weight"] = np.ones((3, 2, 4, 5))
    with pytest.raises(ValueError, match="does not fit toy") as error:
        import_state_dict(weights, RULES, SHAPES, network="toy")
    text = str(error.value)
    assert "missing: layers.1.bias, table;" in text
    assert "surplus: head.weight;" in text
    assert "top (got [3, 1], needs [1, 3])" in text
    assert "stem.0.weight (got [3, 2, 4, 5], needs [5, 4, 3, 2])" in text
    assert "num_batches_tracked" not in text


def test_rules_must_fill_every_variable(weights):
    with pytest.raises(AssertionError, match="do not fill .*params/position"):
        check_state_dict(weights, RULES[:-1], SHAPES, network="toy")
