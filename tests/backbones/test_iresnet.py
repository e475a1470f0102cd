import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.backbones.iresnet import PRESETS, VARIANTS, IResNet, Unit
from kprpe_jax.layers.convolution import PRelu
from tests.quick import quick_jit


def small(**fields):
    return IResNet(
        **{
            **dict(stage_sizes=(1, 1, 1, 1), image_size=(32, 16), output_dim=8),
            **fields,
        }
    )


@pytest.fixture
def images(rng):
    return rng.uniform(-1, 1, (2, 32, 16, 3)).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_training(variant, images):
    model = small(**VARIANTS[variant])
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    variables = quick_jit(lambda k, x: model.init(k, x, train=True))(keys, images)

    def loss(params, images):
        embedding, after = model.apply(
            {**variables, "params": params},
            images,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(2)},
        )
        return jnp.square(embedding - 1).sum(), (embedding, after)

    gradients, (embedding, after) = quick_jit(jax.grad(loss, has_aux=True))(
        variables["params"], images
    )
    assert (embedding.shape, embedding.dtype) == ((2, 8), jnp.float32)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradients))
    old, new = (jax.tree.leaves(v["batch_stats"]) for v in (variables, after))
    assert all((a != b).any() for a, b in zip(old, new, strict=True))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_taps(images, dtype):
    model = small(dtype=dtype, squeeze_excite=True)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    run = lambda v: model.apply(v, images, method="feature_maps")  # noqa: E731
    maps = jax.eval_shape(run, variables)
    shapes = {name: value.shape[1:] for name, value in maps.items()}
    assert shapes == {
        "stage1": (16, 8, 64), "stage2": (8, 4, 128),
        "stage3": (4, 2, 256), "stage4": (2, 1, 512),
    }  # fmt: skip
    assert {value.dtype for value in maps.values()} == {jnp.dtype(dtype)}
    embedding = jax.eval_shape(lambda v: model.apply(v, images), variables)
    assert embedding.dtype == jnp.float32


def test_subsampling_shortcut_passes_every_second_pixel(rng):
    """With the last norm's scale at 0 a unit is its shortcut."""
    x = jnp.asarray(rng.normal(size=(1, 6, 6, 4)), jnp.float32)
    unit = Unit(4, 2, "subsample", False, jnp.float32)
    variables = quick_jit(lambda x: unit.init(jax.random.key(0), x, False))(x)
    variables["params"]["norm3"]["scale"] *= 0
    got = quick_jit(lambda v, x: unit.apply(v, x, False))(variables, x)
    np.testing.assert_array_equal(got, x[:, ::2, ::2])


def test_slopes():
    x = jnp.array([[-2.0, -2.0, 3.0]])
    params = {"params": {"slope": jnp.array([0.5, 0.0, 0.1])}}
    np.testing.assert_array_equal(PRelu().apply(params, x), [[-1, 0, 3]])


@pytest.mark.parametrize(
    ("preset", "layers"), list(zip(PRESETS, (18, 34, 50, 100), strict=True))
)
def test_presets_have_their_layers(preset, layers):
    """Two convolutions per unit, the stem and the last linear layer."""
    assert 2 * sum(PRESETS[preset]["stage_sizes"]) + 2 == layers


def test_errors(images):
    model = small()
    with pytest.raises(
        ValueError, match=r"must be \[B, 32, 16, 3\]; got \(2, 16, 32, 3"
    ):
        jax.eval_shape(model.init, jax.random.key(0), images.transpose(0, 2, 1, 3))
    with pytest.raises(ValueError, match="unknown shortcut 'max'"):
        jax.eval_shape(small(shortcut="max").init, jax.random.key(0), images)
    with pytest.raises(ValueError, match=r"four numbers each; got \(1, 2, 1\) and"):
        jax.eval_shape(small(stage_sizes=(1, 2, 1)).init, jax.random.key(0), images)


def test_squeeze_and_excite_of_few_channels(images):
    model = small(squeeze_excite=True, widths=(4, 4, 8, 8))
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
    assert shapes["stages_0_0"]["gate"]["squeeze"]["kernel"].shape == (4, 1)
