"""Baselines against loops over images in float64."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.fusion.baselines import (
    QualityHead,
    ResidualSelfAttention,
    UncertaintyHead,
    average,
    cfan,
    inlier_average,
    inliers,
    landmark_score_weighted,
    norm_weighted,
    pfe,
)
from tests.quick import quick_jit

B, N, D = 3, 6, 5
METHODS = {
    "average": average,
    "norm_weighted": norm_weighted,
    "inlier_average": inlier_average,
    "landmark_score": landmark_score_weighted,
    "pfe": pfe,
    "cfan": cfan,
}


def mean(rows):
    return sum(rows) / len(rows)


def unit(x):
    return x / np.linalg.norm(x)


def without_outliers(images):
    """Hampel's identifier on the cosines to the mean."""
    units = [unit(f) for (f,) in images]
    cosines = np.array([unit(mean(units)) @ f for f in units])
    away = np.median(cosines) - cosines
    spread = max(1.4826 * np.median(np.abs(away)), 0.01)
    return mean([f for f, a in zip(units, away, strict=True) if a <= 3 * spread])


ORACLES = {  # images of one set, as (embedding, evidence...), to its embedding
    "average": lambda images: mean([unit(f) for (f,) in images]),
    "norm_weighted": lambda images: mean([f for (f,) in images]),
    "inlier_average": without_outliers,
    "landmark_score": lambda images: mean([d * s * unit(f) for f, d, s in images]),
    "pfe": lambda images: (
        sum(unit(f) / np.exp(v) for f, v in images)
        / sum(1 / np.exp(v) for _, v in images)
    ),
    "cfan": lambda images: (
        sum(f * np.exp(q) for f, q in images) / sum(np.exp(q) for _, q in images)
    ),
}


@pytest.fixture
def sets(rng):
    """Embeddings, a mask that leaves 6, 3 and 1 images, and evidence by method."""
    embeddings = rng.normal(size=(B, N, D)).astype(np.float32)
    mask = np.arange(N) < np.array([[6], [3], [1]])
    channels = rng.normal(size=(B, N, D)).astype(np.float32)
    scores = rng.uniform(size=(2, B, N)).astype(np.float32)
    evidence = {
        "average": (),
        "norm_weighted": (),
        "inlier_average": (),
        "landmark_score": tuple(scores),
        "pfe": (channels,),
        "cfan": (channels,),
    }
    return embeddings, mask, evidence


@pytest.mark.parametrize("method", METHODS)
def test_equals_oracle_whatever_the_padding_holds(sets, method, rng):
    embeddings, mask, evidence = sets
    arrays = [embeddings, *evidence[method]]
    want = [
        ORACLES[method]([[x[b, n].astype(np.float64) for x in arrays]
                         for n in range(N) if mask[b, n]])
        for b in range(B)
    ]  # fmt: skip
    fuse = quick_jit(METHODS[method])
    for rubbish in (0.0, 1e6, np.nan, np.inf):
        padded = [
            np.where(mask.reshape(B, N, *(1,) * (x.ndim - 2)), x, np.float32(rubbish))
            for x in arrays
        ]
        got = fuse(padded[0], mask, *padded[1:])
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    order = rng.permutation(N)
    shuffled = fuse(*(x[:, order] for x in (arrays[0], mask, *arrays[1:])))
    np.testing.assert_allclose(shuffled, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_degenerate_sets_are_finite(sets, method):
    """No image, a zero-norm image, NaN as padding, weights of 0: zero or finite."""
    embeddings, mask, evidence = sets
    embeddings, mask = embeddings.copy(), mask.copy()
    mask[0], embeddings[0], embeddings[1, 0] = False, np.nan, 0.0

    def total(embeddings, evidence):
        fused = METHODS[method](embeddings, mask, *evidence)
        return fused.sum(), fused

    arguments = embeddings, evidence[method]
    gradients, fused = quick_jit(jax.grad(total, (0, 1), has_aux=True))(*arguments)
    assert np.isfinite(fused).all()
    assert (np.asarray(fused[0]) == 0).all()
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradients))
    if method == "landmark_score":
        zeros = jax.tree.map(np.zeros_like, evidence[method])
        assert (np.asarray(METHODS[method](embeddings, mask, *zeros)) == 0).all()


def test_outliers_are_dropped(rng):
    """One image of another person among many; never one of two, nor what is alike."""
    person = rng.normal(size=32)
    embeddings = np.float32(person + 0.4 * rng.normal(size=(1, 9, 32)))
    embeddings[0, 4] = 50 * rng.normal(size=32)
    mask = np.ones((1, 9), bool)
    found = quick_jit(inliers)
    kept = found(unit_rows(embeddings), mask)
    assert np.flatnonzero(~np.asarray(kept[0])).tolist() == [4]
    rest = np.delete(embeddings, 4, axis=1)
    got, want = inlier_average(embeddings, mask), average(rest, mask[:, 1:])
    np.testing.assert_allclose(got, want, atol=1e-6)
    two = np.arange(9) < 2
    assert (np.asarray(found(unit_rows(embeddings), two[None])) == two).all()
    same = np.repeat(embeddings[:, :1], 9, axis=1)
    assert np.asarray(found(unit_rows(same), mask)).all()


def unit_rows(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.mark.parametrize("method", ["pfe", "cfan"])
def test_extreme_evidence_does_not_overflow(sets, method):
    embeddings, mask, evidence = sets
    fused = METHODS[method](embeddings, mask, 1e4 * evidence[method][0])
    assert np.isfinite(fused).all()


def test_wrong_shapes_are_described(sets):
    embeddings, mask, evidence = sets
    for method, function in METHODS.items():
        with pytest.raises(ValueError, match=r"embeddings must be \[B, N, D\]"):
            function(embeddings, mask[:, :-1], *evidence[method])


MAPS = (2, 4, 2, 3, 5)  # B, N, h, w, C


@pytest.mark.parametrize("head", [UncertaintyHead(7), QualityHead(7)])
@pytest.mark.parametrize("train", [False, True])
def test_heads_do_not_see_padding(head, train, rng):
    maps = rng.normal(size=MAPS).astype(np.float32)
    mask = np.array([[1, 1, 1, 0], [1, 0, 0, 0]], bool)
    init = quick_jit(partial(head.init, train=False))
    variables = init(jax.random.key(0), maps, mask)
    run = quick_jit(
        lambda maps: head.apply(
            variables, maps, mask, train=train, mutable=["batch_stats"]
        )
    )
    got, after = run(maps)
    padded, after_padded = run(np.where(mask[..., None, None, None], maps, np.nan))
    assert got.shape == (2, 4, 7)
    np.testing.assert_array_equal(np.asarray(got)[mask], np.asarray(padded)[mask])
    jax.tree.map(np.testing.assert_array_equal, after, after_padded)


@pytest.mark.slow
def test_uncertainty_starts_equal_and_has_a_floor(rng):
    maps, mask = rng.normal(size=MAPS).astype(np.float32), np.ones((2, 4), bool)
    head = UncertaintyHead(7)
    variables = head.init(jax.random.key(0), maps, mask, train=False)
    want = np.log(1e-6 + np.exp(-7.0))
    np.testing.assert_allclose(
        head.apply(variables, maps, mask, train=False), want, atol=1e-3
    )
    variables["params"]["shift"] = jnp.float32(-100.0)
    lowest = head.apply(variables, maps, mask, train=False)
    np.testing.assert_allclose(lowest, np.log(1e-6), rtol=1e-6)


def rsa_oracle(params, maps, mask):
    """One set, image by image and place by place, in float64."""
    dense = lambda x, p: x @ np.float64(p["kernel"]) + p["bias"]  # noqa: E731
    places = np.float64(maps)[mask].reshape(-1, maps.shape[-1])
    queries, keys, values = (
        dense(places, params[n]) for n in ("query", "key", "value")
    )
    refined = []
    for place, query in zip(places, queries, strict=True):
        weights = np.exp(keys @ query / np.sqrt(len(query)))
        refined.append(place + params["factor"] * (weights / weights.sum()) @ values)
    return np.reshape(refined, (mask.sum(), *maps.shape[1:])).mean(0)


@pytest.mark.slow
def test_residual_self_attention(rng):
    maps = rng.normal(size=MAPS).astype(np.float32)
    mask = np.array([[1, 1, 1, 0], [0, 0, 0, 0]], bool)
    model = ResidualSelfAttention(inner_dim=4)
    params = model.init(jax.random.key(0), maps, mask)["params"]
    run = quick_jit(lambda params, maps: model.apply({"params": params}, maps, mask))
    np.testing.assert_allclose(run(params, maps)[0], maps[0, :3].mean(0), atol=1e-6)
    params["factor"] = jnp.float32(0.7)
    rubbish = np.where(mask[..., None, None, None], maps, np.nan)
    got = run(params, rubbish)
    np.testing.assert_allclose(got[0], rsa_oracle(params, maps[0], mask[0]), atol=1e-5)
    assert (np.asarray(got[1]) == 0).all()

    def total(params, maps):
        return model.apply({"params": params}, maps, mask).sum()

    gradients = quick_jit(jax.grad(total, (0, 1)))(params, rubbish)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradients))
