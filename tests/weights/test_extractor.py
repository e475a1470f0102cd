"""Backbones as set fusion sees them."""

import jax
import numpy as np
import pytest

from kprpe_jax import registry
from kprpe_jax.core.features import style_statistics
from kprpe_jax.weights import export_weights
from kprpe_jax.weights.extractor import open_extractor
from tests.quick import quick_jit


@pytest.fixture(scope="module")
def weights():
    model = registry.network("mobilefacenet").make()
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 112, 96, 3)))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda s: rng.uniform(0.01, 0.2, s.shape).astype(np.float32), shapes
    )
    return export_weights(model, variables)


@pytest.mark.slow
def test_sizes_and_fingerprints(weights):
    extractor = open_extractor("mobilefacenet", weights)
    assert extractor.image_size == (112, 112)
    assert extractor.sizes() == (128, 64 + 128 + 128)
    assert open_extractor("mobilefacenet", weights).fingerprint == extractor.fingerprint
    fewer = open_extractor("mobilefacenet", weights, taps=["stage2"])
    assert fewer.sizes() == (128, 128)
    other = {**weights, "conv1.conv.weight": weights["conv1.conv.weight"] + 1}
    moved = open_extractor("mobilefacenet", other)
    assert len({e.fingerprint for e in (extractor, fewer, moved)}) == 3
    with pytest.raises(ValueError, match="has no tap 'stage9'; use some of stage1, st"):
        open_extractor("mobilefacenet", weights, taps=["stage9"])
    with pytest.raises(ValueError, match="missing"):
        open_extractor("iresnet_insightface_ir18", weights)


@pytest.mark.slow
def test_features_are_those_of_the_middle_columns(weights, rng):
    extractor = open_extractor("mobilefacenet", weights)
    images = rng.uniform(-1, 1, (2, 112, 112, 3)).astype(np.float32)
    extract = quick_jit(extractor.extract)
    got = extract(extractor.variables, images)
    model = registry.network("mobilefacenet").make()

    @quick_jit
    def directly(images):
        maps = model.apply(extractor.variables, images, method="feature_maps")
        stages = style_statistics([maps[f"stage{n}"] for n in (1, 2, 3)])
        return model.apply(extractor.variables, images), stages

    embeddings, statistics = directly(images[:, :, 8:104])
    np.testing.assert_allclose(got.embeddings, embeddings, rtol=1e-4)
    np.testing.assert_allclose(got.statistics, statistics, rtol=1e-4)
    images[:, :, :8] = images[:, :, 104:] = 0  # not looked at
    again = extract(extractor.variables, images)
    np.testing.assert_array_equal(again.embeddings, got.embeddings)


def test_an_unknown_backbone_is_described():
    with pytest.raises(ValueError, match="unknown backbone 'vgg'; use one of mobilef"):
        open_extractor("vgg", {})
