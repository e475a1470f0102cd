import numpy as np
import pytest
from flax import linen as nn

from kprpe_jax import registry
from kprpe_jax.weights import check_weights, import_weights
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
