import jax
import numpy as np
import pytest
from flax import linen as nn
from flax import traverse_util

from kprpe_jax import registry
from kprpe_jax.weights import check_weights, export_weights, import_weights
from kprpe_jax.weights.load import LAYOUTS, _layout


@pytest.mark.parametrize("name", registry.NETWORKS)
def test_parameters_are_those_registered(name):
    published = registry.NETWORKS[name]
    _, layout = _layout(published.make(), {})
    count = sum(
        np.prod(shape)
        for path, shape in layout.shapes.items()
        if path.startswith("params/")
    )
    assert count / 1e6 == pytest.approx(published.parameters, abs=6e-4)
    filled = {rule.target for rule in layout.rules}
    assert filled == set(layout.shapes)


def test_every_layout_is_there():
    for path in LAYOUTS.values():
        assert callable(registry.resolve(f"kprpe_jax.weights.{path}"))


def test_networks_without_published_weights():
    with pytest.raises(ValueError, match="no weights are published for Dense; use one"):
        import_weights(nn.Dense(1), {"weight": np.zeros((1, 1))})
    with pytest.raises(ValueError, match="unknown network 'vit_bas'; did you mean vit"):
        check_weights("vit_bas", {"weight": np.zeros((1, 1))})


def test_a_part_of_a_checkpoint_is_taken_and_the_rest_is_told(caplog):
    layout = LAYOUTS["MobileFaceNet"]
    network = registry.NETWORKS["mobilefacenet"].make()
    draw = lambda shape: np.ones(shape, np.float32)  # noqa: E731
    rules = registry.resolve(f"kprpe_jax.weights.{layout}")(network, {})
    plain = export_weights(
        network, traverse_util.unflatten_dict(
            {path: draw(shape) for path, shape in rules.shapes.items()}, sep="/"
        ),
    )  # fmt: skip
    nested = {f"module.model.{name}": array for name, array in plain.items()}
    nested |= {"head.kernel": draw((2, 3)), "module.head.bias": draw(3)}
    with caplog.at_level("WARNING"):
        found = import_weights(network, {"epoch": 1, "state_dict": nested})
    jax.tree.map(np.testing.assert_array_equal, found, import_weights(network, plain))
    (record,) = caplog.records
    assert "2 arrays of the file stand beside the MobileFaceNet" in record.message
    assert record.message.endswith("left aside: head.kernel, module.head.bias")
