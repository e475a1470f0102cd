import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.backbones.sphereface import SphereFace, SphereUnit
from tests.quick import quick_jit


def small(**fields):
    return SphereFace(
        **{
            **dict(stage_sizes=(1, 0, 0, 1), image_size=(32, 16), output_dim=8),
            **fields,
        }
    )


@pytest.fixture
def images(rng):
    return rng.uniform(-1, 1, (2, 32, 16, 3)).astype(np.float32)


def test_taps(images):
    model = small()
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    assert set(variables) == {"params"}  # no norms
    run = lambda v: model.apply(v, images, method="feature_maps")  # noqa: E731
    maps = jax.eval_shape(run, variables)
    assert {name: value.shape[1:] for name, value in maps.items()} == {
        "stage1": (16, 8, 64), "stage2": (8, 4, 128), "stage3": (4, 2, 256),
        "stage4": (2, 1, 512), "patches": (2, 1, 512),
    }  # fmt: skip
    embedding = jax.eval_shape(lambda v: model.apply(v, images, train=True), variables)
    assert (embedding.shape, embedding.dtype) == ((2, 8), jnp.float32)


def test_unit_adds_its_input(rng):
    """With the last convolution at 0 the branch is 0."""
    x = jnp.asarray(rng.normal(size=(1, 4, 4, 6)), jnp.float32)
    unit = SphereUnit(jnp.float32)
    variables = quick_jit(lambda x: unit.init(jax.random.key(0), x))(x)
    call = quick_jit(unit.apply)
    assert np.abs(call(variables, x) - x).max() > 0.01
    variables["params"]["conv2"]["kernel"] *= 0
    np.testing.assert_array_equal(call(variables, x), x)


def test_half_precision_gives_float32_embeddings(images):
    model = small(dtype=jnp.bfloat16)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    run = jax.eval_shape(lambda v: model.apply(v, images), variables)
    assert run.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("size", [(32, 32), (40, 16)])
def test_wrong_size(images, size):
    with pytest.raises(ValueError, match=r"multiples of 16; got \(2, 32, 16, 3\)"):
        jax.eval_shape(small(image_size=size).init, jax.random.key(0), images)
