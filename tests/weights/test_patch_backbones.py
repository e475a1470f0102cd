from functools import cache

import jax
import numpy as np
import pytest

from kprpe_jax.backbones.arcface_resnet import ArcFaceResNet
from kprpe_jax.backbones.inception_resnet import InceptionResNet
from kprpe_jax.backbones.sphereface import SphereFace
from kprpe_jax.weights import export_weights, import_weights

MODELS = {
    "arcface": ArcFaceResNet((1, 2, 1, 1), image_size=(32, 16), output_dim=4),
    "cosface": SphereFace((1, 2, 0, 1), image_size=(32, 16), output_dim=4),
    "facenet": InceptionResNet(repeats=(0, 1, 0), image_size=(80, 80), output_dim=4),
}


@cache
def drawn(name):
    model, rng = MODELS[name], np.random.default_rng(0)
    images = np.zeros((1, *model.image_size, 3), np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    return jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32), shapes)


@pytest.mark.parametrize("name", MODELS)
def test_round_trip(name):
    model, variables = MODELS[name], drawn(name)
    weights = export_weights(model, variables)
    extra = {"logits.weight": np.zeros((3, 4))} if name == "facenet" else {}
    stored = {f"module.{k}": v for k, v in (weights | extra).items()}
    again = import_weights(model, stored)
    jax.tree.map(np.testing.assert_array_equal, again, variables)


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("arcface", "layer2.0.downsample.0.weight"),
        ("cosface", "layer1.2.prelu1.weight"),
        ("facenet", "mixed_7a.branch2.1.bn.bias"),
    ],
)
def test_weights_of_another_network(name, missing):
    model = MODELS[name]
    weights = export_weights(model, drawn(name))
    del weights[missing]
    message = f"does not fit this {type(model).__name__}; missing: {missing};"
    with pytest.raises(ValueError, match=message):
        import_weights(model, weights)
