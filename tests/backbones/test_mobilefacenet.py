import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.backbones.mobilefacenet import Bottleneck, MobileFaceNet
from tests.quick import quick_jit


@pytest.fixture
def images(rng):
    return rng.uniform(-1, 1, (2, 48, 32, 3)).astype(np.float32)


@pytest.mark.slow
def test_taps_and_statistics(images):
    model = MobileFaceNet(image_size=(48, 32), output_dim=16)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    run = lambda v: model.apply(v, images, method="feature_maps")  # noqa: E731
    maps = jax.eval_shape(run, variables)
    assert {name: value.shape[1:] for name, value in maps.items()} == {
        "stage1": (12, 8, 64), "stage2": (6, 4, 128),
        "stage3": (3, 2, 128), "conv3": (3, 2, 512),
    }  # fmt: skip

    def train(variables):
        return model.apply(variables, images, train=True, mutable=["batch_stats"])

    embedding, after = jax.eval_shape(train, variables)
    assert (embedding.shape, embedding.dtype) == ((2, 16), jnp.float32)
    assert after["batch_stats"] == variables["batch_stats"]


def test_bottleneck_adds_its_input_where_shapes_agree(rng):
    """With the last norm's scale at 0 the branch is 0."""
    x = jnp.asarray(rng.normal(size=(1, 4, 4, 6)), jnp.float32)
    for width, stride, kept in ((6, 1, x), (6, 2, 0 * x[:, ::2, ::2])):
        block = Bottleneck(width, 2, stride, jnp.float32)
        variables = quick_jit(lambda x, b=block: b.init(jax.random.key(0), x, False))(x)
        variables["params"]["project"]["norm"]["scale"] *= 0
        got = quick_jit(lambda v, x, b=block: b.apply(v, x, False))(variables, x)
        np.testing.assert_array_equal(got, kept)


def test_size():
    """The published network has about one million parameters."""
    model = MobileFaceNet(image_size=(112, 96))
    images = jnp.zeros((1, 112, 96, 3))
    params = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert 0.9e6 < count < 1.1e6


def test_half_precision_gives_float32_embeddings(images):
    model = MobileFaceNet(image_size=(48, 32), dtype=jnp.bfloat16)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    run = jax.eval_shape(lambda v: model.apply(v, images), variables)
    assert run.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("size", [(48, 48), (40, 32)])
def test_wrong_size(images, size):
    with pytest.raises(ValueError, match=r"multiples of 16; got \(2, 48, 32, 3\)"):
        jax.eval_shape(MobileFaceNet(image_size=size).init, jax.random.key(0), images)
