import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.backbones.arcface_resnet import ArcFaceResNet, GrayUnit
from kprpe_jax.layers.convolution import PRelu
from tests.quick import quick_jit


def small(**fields):
    return ArcFaceResNet(
        **{
            **dict(stage_sizes=(1, 1, 1, 1), image_size=(32, 16), output_dim=8),
            **fields,
        }
    )


@pytest.fixture
def images(rng):
    return rng.uniform(-1, 1, (2, 32, 16, 3)).astype(np.float32)


def drawn(model, rng, *args):
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), *args))
    return jax.tree.map(
        lambda s: rng.uniform(0.05, 0.2, s.shape).astype(np.float32), shapes
    )


def test_taps_and_statistics(images):
    model = small()
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    run = lambda v: model.apply(v, images, method="feature_maps")  # noqa: E731
    maps = jax.eval_shape(run, variables)
    shapes = {name: value.shape[1:] for name, value in maps.items()}
    want = {"stage2": (8, 4, 128), "stage3": (4, 2, 256), "patches": (2, 1, 512)}
    assert shapes == want

    def train(variables):
        rngs = {"dropout": jax.random.key(0)}
        return model.apply(
            variables, images, train=True, rngs=rngs, mutable=["batch_stats"]
        )

    embedding, after = jax.eval_shape(train, variables)
    assert (embedding.shape, embedding.dtype) == ((2, 8), jnp.float32)
    assert after["batch_stats"] == variables["batch_stats"]


def test_colors_count_as_their_luma(images, rng):
    """Through the stem alone: what comes after sees nothing but it."""
    model = small(stage_sizes=(0, 0, 1, 0))
    variables = drawn(model, rng, images)
    gray = 0.299 * images[..., :1] + 0.587 * images[..., 1:2] + 0.114 * images[..., 2:]
    call = quick_jit(lambda v, x: model.apply(v, x, method="feature_maps")["stage3"])
    assert_close = np.testing.assert_allclose
    assert_close(call(variables, images), call(variables, gray), rtol=1e-4)


def test_unit_shares_its_slope(rng):
    """With the last norm's scale and bias at 0 a unit is the PReLU of its input."""
    x = jnp.asarray(rng.normal(size=(1, 4, 4, 6)), jnp.float32)
    unit = GrayUnit(6, 1, jnp.float32)
    variables = drawn(unit, rng, x, False)
    variables["params"]["norm3"] = jax.tree.map(
        np.zeros_like, variables["params"]["norm3"]
    )
    slope = variables["params"]["act"]["slope"]
    assert slope.shape == (1,)
    got = quick_jit(lambda v, x: unit.apply(v, x, False))(variables, x)
    np.testing.assert_allclose(got, np.where(x > 0, x, slope * x), rtol=1e-6)
    act = PRelu(shared=True).apply({"params": {"slope": slope}}, x)
    np.testing.assert_array_equal(got, act)


def test_half_precision_gives_float32_embeddings(images):
    model = small(dtype=jnp.bfloat16)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    run = jax.eval_shape(lambda v: model.apply(v, images), variables)
    assert run.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    ("size", "channels"), [((32, 32), 3), ((32, 16), 4), ((30, 16), 3)]
)
def test_wrong_images(size, channels):
    images = np.zeros((2, *size, channels), np.float32)
    image_size = (30, 16) if size[0] == 30 else (32, 16)
    with pytest.raises(ValueError, match=r"multiples of 16; got \(2, 3"):
        jax.eval_shape(small(image_size=image_size).init, jax.random.key(0), images)
