"""GaitSet and GaitBase: padding and order of frames, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.backbones.gaitbase import GaitBase
from kprpe_jax.backbones.gaitset import GaitSet
from tests.quick import quick_jit

SMALL = dict(image_size=(12, 8), bins=(3, 1), part_dim=3)
MODELS = {
    "gaitset": GaitSet(channels=(2, 3, 4), **SMALL),
    "gaitbase": GaitBase(
        5, channels=(2, 3), depths=(1, 2), strides=(2, 1), max_pool=True, **SMALL
    ),
}


@pytest.mark.parametrize(
    "name", ["gaitset", pytest.param("gaitbase", marks=pytest.mark.slow)]
)
def test_padding_and_order_change_nothing(name):
    model, rng = MODELS[name], np.random.default_rng(0)
    silhouettes = rng.uniform(size=(2, 4, 12, 8)).astype(np.float32)
    mask = np.array([[True, True, True, False], [False] * 4])
    variables = quick_jit(model.init)(jax.random.key(0), silhouettes, mask=mask)
    run = quick_jit(lambda x, mask: model.apply(variables, x, mask=mask))
    want = run(silhouettes, mask).embeddings
    assert want.shape == (2, 8 if name == "gaitset" else 4, 3)
    assert np.abs(want[0]).min() > 0
    assert np.abs(want[1]).max() == 0  # no valid frame
    order = [3, 1, 0, 2]
    changed = np.where(mask[..., None, None], silhouettes, np.nan)[:, order]
    got = run(changed, mask[:, order]).embeddings
    np.testing.assert_allclose(got, want, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_training_ignores_padding_and_is_finite(name):
    model, rng = MODELS[name], np.random.default_rng(0)
    silhouettes = rng.uniform(size=(2, 4, 12, 8)).astype(np.float32)
    silhouettes[1] = silhouettes[0, 3] = np.nan
    mask = np.array([[True, True, True, False], [False] * 4])
    variables = quick_jit(model.init)(jax.random.key(0), silhouettes, mask=mask)

    def loss(params):
        output, _ = model.apply(
            {**variables, "params": params}, silhouettes, mask=mask, train=True,
            mutable=["batch_stats"],
        )  # fmt: skip
        return sum(jnp.square(x).sum() for x in output if x is not None)

    gradients = quick_jit(jax.grad(loss))(variables["params"])
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradients))


@pytest.mark.parametrize("name", MODELS)
def test_bad_input(name):
    model = MODELS[name]

    def init(shape, **options):
        return jax.eval_shape(
            lambda x: model.init(jax.random.key(0), x, **options), jnp.zeros(shape)
        )

    title = type(model).__name__
    with pytest.raises(ValueError, match=rf"{title}: silhouettes must be \[B, T, 12, "):
        init((2, 0, 12, 8))
    with pytest.raises(ValueError, match=rf"{title}: mask must be \(2, 3\), one value"):
        init((2, 3, 12, 8), mask=jnp.ones((2, 4), bool))
    wrong = model.clone(bins=(5,))
    with pytest.raises(ValueError, match="every level must divide the 3 rows"):
        jax.eval_shape(wrong.init, jax.random.key(0), jnp.zeros((2, 3, 12, 8)))


def test_stages_that_do_not_match():
    model = MODELS["gaitbase"].clone(strides=(1, 2, 2))
    with pytest.raises(ValueError, match="the same stages; got 2, 2 and 3 numbers"):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((2, 3, 12, 8)))
