"""The networks of DeepFace-EMD against stored outputs of the official code, float32.

Values are relative to the largest of each array: float32 sums in another order cost
2.5e-6 of it in the shared cases, and the bound leaves room for others.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.backbones.arcface_resnet import ArcFaceResNet
from kprpe_jax.backbones.inception_resnet import InceptionResNet
from kprpe_jax.backbones.sphereface import SphereFace
from kprpe_jax.core.unit import unit
from kprpe_jax.weights import import_weights
from tests.golden.golden import assert_close, case_params, load_case
from tests.golden.sampled_weights import draw_weights
from tests.quick import quick_jit

pytestmark = pytest.mark.golden

BOUND = 2e-5


def run(model, loaded, images):
    """Patch maps [B, C, h, w], other maps, and embeddings."""
    variables = import_weights(model, draw_weights(loaded.meta))
    images = jnp.asarray(images.transpose(0, 2, 3, 1))

    def both(model, images):
        maps = model.feature_maps(images)
        return maps, model.embed_map(maps["patches"])

    call = quick_jit(lambda v, x: model.apply(v, x, method=both))
    maps, embeddings = call(variables, images)
    maps = {k: np.asarray(v).transpose(0, 3, 1, 2) for k, v in maps.items()}
    return maps["patches"], maps, np.asarray(embeddings)


@pytest.mark.parametrize("case", case_params("backbone_arcface"))
def test_arcface(case):
    loaded = load_case(case)
    given, want = loaded.arrays["in"], loaded.arrays["out"]
    images = given["image_u8"][:, None].astype(np.float32) / 127.5 - 1
    np.testing.assert_allclose(images, given["image"], atol=1e-6)
    patches, maps, embeddings = run(ArcFaceResNet(), loaded, images)
    count, channels, height, width = patches.shape
    halves = patches.reshape(count, channels, height // 2, 2, width // 2, 2)
    got = {
        "fea": embeddings,
        "embedding_88": patches,
        "embedding_44": halves.mean((3, 5)),
        "adpt_pooling_88": patches.mean((2, 3), keepdims=True),
        "embedding_16_mean": maps["stage3"].mean((2, 3)),
        "embedding_16_first4": maps["stage3"][:, :4],
    }
    assert set(got) == set(want)
    for name, array in got.items():
        assert_close(array, want[name], BOUND, name)


@pytest.mark.parametrize("case", case_params("backbone_cosface"))
def test_cosface(case):
    loaded = load_case(case)
    given, want = loaded.arrays["in"]["image"], loaded.arrays["out"]
    both = np.concatenate([given, given[..., ::-1]])
    patches, _, embeddings = run(SphereFace(), loaded, both)
    patches, (plain, flipped) = patches[: len(given)], np.split(embeddings, 2)
    got = {
        "fea": plain,
        "fea_flip": flipped,
        "fea_concat_1024": np.concatenate([plain, flipped], 1),
        "embedding": patches,
        "adpt_pooling": patches.mean((2, 3), keepdims=True),
    }
    assert set(got) == set(want)
    for name, array in got.items():
        assert_close(array, want[name], BOUND, name)


@pytest.mark.parametrize("case", case_params("backbone_facenet"))
def test_facenet(case):
    loaded = load_case(case)
    given, want = loaded.arrays["in"], loaded.arrays["out"]
    small = given["image_128_u8"].astype(np.float32) / 255
    shape = (len(small), *given["image"].shape[2:], 3)
    resized = jax.image.resize(small, shape, "bilinear").transpose(0, 3, 1, 2)
    np.testing.assert_allclose(resized, given["image"][: len(small)], atol=1e-5)

    model = InceptionResNet()
    patches, _, embeddings = run(model, loaded, given["image"])
    got = {
        "fea": unit(embeddings),
        "embedding": patches,
        "adpt_pooling": patches.mean((2, 3), keepdims=True),
    }
    assert set(got) == set(want)
    for name, array in got.items():
        assert_close(array, want[name], BOUND, name)
