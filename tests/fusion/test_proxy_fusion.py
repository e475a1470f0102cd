"""ProxyFusion: an oracle in float64, streams, sets without images, bad input."""

import jax
import numpy as np
import pytest

from kprpe_jax.core.features import Features
from kprpe_jax.fusion.cluster_aggregate import ImageSets
from kprpe_jax.fusion.proxy_fusion import ProxyFusion
from tests.fusion.tiny import pad_images, select
from tests.quick import quick_jit

B, N, D = 3, 6, 5
FIELDS = dict(num_proxies=4, num_chosen=2, select_dim=3)


@pytest.fixture(scope="module")
def built():
    """A model of large weights, sets of 6, 3 and 0 images, and its state of them."""
    rng = np.random.default_rng(3)
    model = ProxyFusion(D, **FIELDS)
    mask = np.arange(N) < np.array([[6], [3], [0]])
    embeddings = rng.normal(size=(B, N, D)).astype(np.float32)
    embeddings[~mask] = np.nan
    sets = ImageSets(Features(embeddings), mask)
    shapes = jax.eval_shape(model.init, jax.random.key(0), sets)
    variables = jax.tree.map(
        lambda x: rng.normal(0, 0.7, x.shape).astype(np.float32), shapes
    )
    update = quick_jit(
        lambda state, sets: model.apply(variables, state, sets, method="update")
    )
    return model, variables, sets, update


def oracle(params, images, count=FIELDS["num_chosen"]):
    """Chosen proxies, in order, and their fused vectors; one set, in float64."""
    params = jax.tree.map(np.float64, params)
    images = images.astype(np.float64)

    def unit(x):
        return x / np.linalg.norm(x)

    def linear(layer, x):
        return x @ layer["kernel"] + layer["bias"]

    def leaky(x):
        return np.where(x > 0, x, 0.01 * x)

    proxies = params["proxies_probe"]
    similarity = [
        sum(
            unit(linear(params["select"], f)) @ unit(linear(params["select"], p))
            for f in images
        )
        for p in proxies
    ]
    chosen = sorted(range(len(proxies)), key=lambda n: -similarity[n])
    chosen, vectors = chosen[:count], []
    for n in chosen:
        x = np.concatenate([images.mean(0), images.var(0), proxies[n]])
        for layer in ("experts_0", "experts_1", "experts_2"):
            x = leaky(linear({k: v[n] for k, v in params[layer].items()}, x))
        scores = [linear(params["probe_linear"], f) @ x for f in images]
        weights = np.exp(np.array(scores) - max(scores))
        weights /= weights.sum()
        vectors.append(sum(w * unit(f) for w, f in zip(weights, images, strict=True)))
    return chosen, vectors


def test_equals_oracle_whatever_the_padding_holds(built):
    model, variables, sets, update = built
    state = update(model.init_state(B), sets)
    vectors = np.asarray(model.vectors(state))
    fused = np.asarray(model.finalize(state).embeddings)
    embeddings, mask = sets.features.embeddings, sets.mask
    for row in range(2):
        _, want = oracle(variables["params"], embeddings[row, mask[row]])
        np.testing.assert_allclose(vectors[row], want, rtol=1e-4, atol=1e-5)
        units = [v / np.linalg.norm(v) for v in want]
        np.testing.assert_allclose(fused[row], np.mean(units, 0), rtol=1e-4, atol=1e-5)
    assert (vectors[2] == 0).all()
    assert (fused[2] == 0).all()


def test_a_stream_chooses_as_all_images_do(built):
    """Choice exact, vectors averaged by images; merging in any order is the same."""
    model, variables, sets, update = built
    parts = [(0, 1), (2, 3, 4), (5,)]
    padded = [pad_images(select(sets, list(part)), np.nan, N) for part in parts]
    empty = model.init_state(B)
    states = [update(empty, part) for part in padded]
    merged = model.merge(states[2], model.merge(states[0], states[1]))
    streamed = empty
    for part in padded:
        streamed = update(streamed, part)
    whole = update(empty, sets)
    for got in (merged, streamed):
        for name in ("similarity", "images"):
            np.testing.assert_allclose(
                getattr(got, name), getattr(whole, name), rtol=1e-5, atol=1e-5
            )
    np.testing.assert_allclose(merged.total, streamed.total, atol=1e-5)
    images = sets.features.embeddings[0]
    chosen, _ = oracle(variables["params"], images)
    found = np.zeros((len(chosen), D))
    for part in parts:
        own = images[list(part)]
        order, vectors = oracle(variables["params"], own, FIELDS["num_proxies"])
        picked = [vectors[order.index(n)] for n in chosen]
        found += len(part) / N * np.array(picked)
    np.testing.assert_allclose(model.vectors(merged)[0], found, rtol=1e-4, atol=1e-5)


def test_gradients_reach_the_experts_and_dropout_is_random(built):
    model, variables, sets, _ = built

    @quick_jit
    def gradient(params, rng):
        def loss(params):
            fused = model.apply(
                {"params": params}, sets, train=True, rngs={"dropout": rng}
            )
            return fused.embeddings.sum()

        return jax.grad(loss)(params)

    one, other = (gradient(variables["params"], jax.random.key(n)) for n in (0, 1))
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(one))
    assert np.abs(one["experts_2"]["kernel"]).max() > 0
    assert np.abs(one["proxies_probe"]).max() > 0
    assert np.abs(one["proxies_gallery"]).max() == 0
    assert np.abs(one["experts_2"]["kernel"] - other["experts_2"]["kernel"]).max() > 0


def test_wrong_sizes_are_described(built):
    model, variables, sets, _ = built
    with pytest.raises(ValueError, match=r"must be \[B, N, 4\] and the mask .* got \("):
        ProxyFusion(4).init(jax.random.key(0), sets)
    with pytest.raises(ValueError, match="merge streams of one model and of the same"):
        model.merge(model.init_state(2), model.init_state(3))
    for fields, match in (
        (dict(num_chosen=5), "num_chosen must lie in 1 .. num_proxies = 4; got 5"),
        (dict(side="both"), "side"),
    ):
        with pytest.raises(ValueError, match=match):
            model.clone(**fields).init(jax.random.key(0), sets)
