import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.core.features import style_statistics
from kprpe_jax.fusion.style import StyleInputMaker
from tests.quick import quick_jit


def test_statistics_equal_oracle(rng):
    maps = [rng.normal(5, 3, (2, 4, *s)).astype(np.float32)
            for s in ((3, 5, 2), (2, 2, 3))]  # fmt: skip
    got = style_statistics(maps)
    for b in range(2):
        for n in range(4):
            want = [
                (features[b, n, ..., c].mean(), features[b, n, ..., c].std(ddof=1))
                for features in maps
                for c in range(features.shape[-1])
            ]
            np.testing.assert_allclose(got[b, n], want, rtol=1e-5)


def test_flat_maps_and_single_pixels_are_finite(rng):
    for shape in ((2, 3, 3, 4), (2, 1, 1, 4)):
        flat = jnp.full(shape, 3.0)
        gradient = quick_jit(jax.grad(lambda x: style_statistics([x]).sum()))(flat)
        assert np.isfinite(gradient).all()
        assert (np.asarray(style_statistics([flat]))[..., 1] == 0).all()


@pytest.mark.parametrize(
    ("pool", "activation", "slope", "factor"),
    [("mean", "relu", 0.0, 0.5), ("sum", "prelu", 0.3, 1.0)],
)
def test_equals_oracle(rng, pool, activation, slope, factor):
    statistics = rng.normal(size=(3, 4, 5, 2)).astype(np.float32)
    model = StyleInputMaker(6, pool, activation)
    mask = np.ones((3, 4), bool)
    shapes = jax.eval_shape(
        lambda: model.init(jax.random.key(0), statistics, mask, train=False)
    )
    variables = jax.tree.map(lambda s: rng.uniform(0.5, 1.5, s.shape), shapes)
    params, stats = variables["params"], variables["batch_stats"]["norm"]
    params["weight"] -= 1.0
    if activation == "prelu":
        params["slope"] = slope
    x = (statistics * params["weight"]).sum(-1) * factor
    x = np.where(x > 0, x, slope * x)
    x = x @ params["linear"]["kernel"] + params["linear"]["bias"]
    x = (x - stats["mean"]) / np.sqrt(stats["var"] + 1e-5)
    want = x * params["norm"]["scale"] + params["norm"]["bias"]
    got = model.apply(variables, statistics, mask, train=False)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_maps_must_be_of_the_same_images():
    with pytest.raises(ValueError, match="of the same images; got .* tap one network"):
        style_statistics([jnp.zeros((2, 3, 3, 4)), jnp.zeros((3, 3, 3, 4))])
    with pytest.raises(ValueError, match="there must be maps"):
        style_statistics([])
