import jax
import numpy as np
import pytest

from kprpe_jax.backbones.iresnet import VARIANTS, IResNet
from kprpe_jax.weights import check_weights, export_weights, import_weights

MODELS = {
    "cvlface": dict(VARIANTS["cvlface"]),
    "insightface": dict(VARIANTS["insightface"]),
    "se": dict(VARIANTS["cvlface"], squeeze_excite=True),
}


def small(name, stages=(1, 2, 1, 1)):
    return IResNet(stages, image_size=(32, 16), output_dim=4, **MODELS[name])


@pytest.mark.parametrize("name", MODELS)
def test_round_trip(name, rng):
    model = small(name)
    images = np.zeros((1, 32, 16, 3), np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    variables = jax.tree.map(
        lambda s: rng.normal(size=s.shape).astype(np.float32), shapes
    )
    weights = export_weights(model, variables)
    again = import_weights(model, {f"net.{k}": v for k, v in weights.items()})
    jax.tree.map(np.testing.assert_array_equal, again, variables)


def test_wrong_weights_are_described(rng):
    model = small("cvlface")
    images = np.zeros((1, 32, 16, 3), np.float32)
    zeros = jax.tree.map(
        lambda s: np.zeros(s.shape, np.float32),
        jax.eval_shape(model.init, jax.random.key(0), images),
    )
    weights = export_weights(model, zeros)
    del weights["body.4.res_layer.3.weight"]
    with pytest.raises(ValueError, match="missing: body.4.res_layer.3.weight"):
        check_weights(model, weights)
    with pytest.raises(ValueError, match="IResNet .conv.; missing: conv1.weight"):
        check_weights(small("insightface"), weights)


def test_mixed_options():
    mixed = small("insightface").clone(head_affine=False)
    with pytest.raises(ValueError, match="are the VARIANTS, .* got shortcut 'conv'"):
        check_weights(mixed, {"a": np.ones(1)})
