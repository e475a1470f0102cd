import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.backbones.inception_resnet import (
    Branches,
    InceptionResNet,
    Reduction,
)
from tests.quick import quick_jit

TINY: Branches = (((2, 1, 1),), ((3, 1, 1), (2, 3, 3)))


def small(**fields):
    return InceptionResNet(**{**dict(repeats=(0, 1, 0), output_dim=8), **fields})


def drawn(module, rng, x):
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), x, False))
    return jax.tree.map(
        lambda s: rng.uniform(0.1, 0.5, s.shape).astype(np.float32), shapes
    )


def test_taps_and_statistics():
    model, images = small(), jnp.zeros((2, 160, 160, 3))
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    run = lambda v: model.apply(v, images, method="feature_maps")  # noqa: E731
    maps = jax.eval_shape(run, variables)
    assert {name: value.shape[1:] for name, value in maps.items()} == {
        "block35": (17, 17, 256), "block17": (8, 8, 896), "patches": (3, 3, 1792),
    }  # fmt: skip

    def train(variables):
        rngs = {"dropout": jax.random.key(0)}
        return model.apply(
            variables, images, train=True, rngs=rngs, mutable=["batch_stats"]
        )

    embedding, after = jax.eval_shape(train, variables)
    assert (embedding.shape, embedding.dtype) == ((2, 8), jnp.float32)
    assert after["batch_stats"] == variables["batch_stats"]


def test_reduction_ends_with_the_largest_of_each_window(rng):
    x = rng.normal(size=(1, 7, 6, 4)).astype(np.float32)
    branches = (((2, 3, 3),), ((3, 1, 1), (2, 3, 3)))
    module = Reduction(branches, jnp.float32)
    call = quick_jit(lambda v, x: module.apply(v, x, False))
    got = call(drawn(module, rng, x), x)
    assert got.shape == (1, 3, 2, 2 + 2 + 4)
    want = [
        [x[0, 2 * r : 2 * r + 3, 2 * c : 2 * c + 3].max((0, 1)) for c in range(2)]
        for r in range(3)
    ]
    np.testing.assert_array_equal(got[0, ..., 4:], np.array(want))


def test_half_precision_gives_float32_embeddings():
    model, images = small(dtype=jnp.bfloat16), jnp.zeros((2, 160, 160, 3))
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    run = jax.eval_shape(lambda v: model.apply(v, images), variables)
    assert run.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("size", [(160, 128), (64, 64)])
def test_wrong_size(size):
    images = jnp.zeros((2, 64, 64, 3))
    with pytest.raises(ValueError, match=r"at least 75; got \(2, 64, 64, 3\)"):
        jax.eval_shape(small(image_size=size).init, jax.random.key(0), images)
