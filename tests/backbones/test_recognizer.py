"""Every network of the registry is one recognizer, with the same methods."""

import jax
import numpy as np
import pytest

from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.core.features import take
from kprpe_jax.registry import NETWORKS, network
from kprpe_jax.tasks.networks import example_inputs
from tests.first_of_kind import first_of_kind
from tests.siblings import SIBLINGS, features, sibling


def faces(recognizer, rng, count=2):
    """Wide images, as aligned faces are stored, and keypoints."""
    height, width = recognizer.image_size
    images = rng.uniform(-1, 1, (count, height, max(height, width), 3))
    keypoints = rng.uniform(0.2, 0.8, (count, 5, 2))
    return images.astype(np.float32), keypoints.astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("name", SIBLINGS)
def test_features_of_every_kind(name, rng):
    recognizer = sibling(name)
    images, keypoints = faces(recognizer, rng)
    got = features(recognizer, images, keypoints)
    rows, columns = recognizer.grid
    want = recognizer.shapes()
    for part, shape in zip(got, want, strict=True):
        assert (part.shape[0], part.shape[1:]) == (2, shape.shape[1:])
        assert (part.dtype, np.isfinite(part).all()) == (np.float32, True)
    assert got.patches.shape[1] == rows * columns
    # An image's features do not depend on its batch-mates.
    alone = features(recognizer, images[1:], keypoints[1:])
    np.testing.assert_allclose(
        alone.embeddings, take(got, slice(1, 2)).embeddings, rtol=1e-3, atol=1e-4
    )
    # Keypoints matter exactly to those networks that read them.
    moved = features(recognizer, images, keypoints[::-1])
    same = np.allclose(moved.embeddings, got.embeddings, rtol=0, atol=1e-7)
    assert same != recognizer.uses_keypoints


def test_new_weights_recompile_nothing(rng):
    traced = []

    @jax.jit
    def embed(recognizer, images, keypoints):
        traced.append(1)
        return recognizer.embed(images, keypoints)

    images, keypoints = faces(sibling("vit_kprpe_base_multihead"), rng)
    first, second = (
        embed(sibling("vit_kprpe_base_multihead", seed), images, keypoints)
        for seed in (0, 1)
    )
    assert len(traced) == 1
    assert np.abs(first - second).max() > 1e-3


def test_the_fingerprint_is_of_weights_architecture_and_contract():
    recognizer = sibling("iresnet_ir50")
    others = (
        sibling("iresnet_ir50", 1),
        recognizer.replace(input_spec=recognizer.input_spec._replace(color="bgr")),
        recognizer.replace(style_maps=("stage1",)),
    )
    prints = {x.fingerprint for x in (recognizer, *others)}
    assert len(prints) == 4
    assert recognizer.fingerprint == recognizer.replace(name="another").fingerprint


def test_unknown_style_maps_are_named(rng):
    recognizer = sibling("mobilefacenet").replace(style_maps=("stage9",))
    with pytest.raises(ValueError, match="no feature map 'stage9'; use some of stage1"):
        recognizer.shapes()


@pytest.mark.parametrize(
    "name", first_of_kind(n for n, x in NETWORKS.items() if x.kind == "recognizer")
)
def test_full_size_networks_by_shape(name):
    published = network(name)
    module, spec = published.make(), published.input_spec
    shapes = jax.eval_shape(module.init, jax.random.key(0), *example_inputs(spec, 1))
    recognizer = Recognizer(shapes, module, spec, name)
    got = recognizer.shapes()
    rows, columns = recognizer.grid
    assert got.embeddings.shape == (1, module.output_dim)
    assert got.patches.shape[:2] == (1, rows * columns)
    assert got.style.shape[2] == 2
    assert (spec.num_keypoints, spec.image_size) == (
        module.num_keypoints,
        tuple(module.image_size),
    )
    count = sum(x.size for x in jax.tree.leaves(shapes["params"])) / 1e6
    assert count == pytest.approx(published.parameters, abs=6e-3)
