"""CAFace as a whole: padding, streams, degenerate sets."""

from functools import cache

import jax
import numpy as np
import pytest

from kprpe_jax.core.features import Features
from kprpe_jax.fusion.cluster_aggregate import ImageSets
from kprpe_jax.fusion.state import finalize, merge
from tests.fusion.tiny import (
    D,
    draw_sets,
    draw_variables,
    fuser,
    pad_images,
    select,
    tiny_model,
    updater,
    with_embeddings,
)
from tests.quick import quick_jit

TOLERANCE = dict(rtol=1e-4, atol=1e-5)


def assert_same(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, **TOLERANCE)


@cache
def compiled(variant, train):
    """Variables, and a function from sets to (gradients, (fused, statistics))."""
    model = tiny_model(variant, drop_path_rate=0.0)
    variables = draw_variables(model, np.random.default_rng(1))
    weights = np.random.default_rng(2).normal(size=(2, D))

    def run(params, embeddings, sets):
        fused, after = model.apply(
            {**variables, "params": params}, with_embeddings(sets, embeddings),
            train=train, mutable=["batch_stats"],
        )  # fmt: skip
        return (fused.embeddings * weights).sum(), (fused, after)

    gradient = quick_jit(jax.grad(run, (0, 1), has_aux=True))
    return (
        lambda sets: gradient(variables["params"], sets.features.embeddings, sets),
        lambda sets: quick_jit(run)(
            variables["params"], sets.features.embeddings, sets
        )[1],
    )


MODES = [("paper", False), ("official", True)]


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "train"), MODES)
def test_padding_never_changes_a_result(rng, variant, train):
    """Nor the running statistics, nor the gradients, even if it is not finite."""
    sets, (run, forward) = draw_sets(rng, 4), compiled(variant, train)
    want = run(pad_images(sets, 0.0, 7))
    assert_same(want[1], forward(sets))
    for rubbish in (1e3, np.nan):
        assert_same(run(pad_images(sets, rubbish, 7)), want)


def test_order_within_a_set_does_not_matter(rng):
    model = tiny_model()
    fuse, sets = fuser(model, draw_variables(model, rng)), draw_sets(rng, 7)
    assert_same(fuse(sets), fuse(select(sets, rng.permutation(7))))


@pytest.mark.slow
def test_streams_equal_all_at_once_without_transformer(rng):
    """Any split and any order, where batch-mates do not matter."""
    model = tiny_model(depth=0)
    variables, sets = draw_variables(model, rng), draw_sets(rng, 12)
    update = updater(model, variables)
    want = fuser(model, variables)(sets)
    for splits in ([4, 8], [1, 2, 10]):
        parts = np.split(rng.permutation(12), splits)
        streamed, merged = model.init_state(2), model.init_state(2)
        for part in parts:
            batch = pad_images(select(sets, part), np.nan, 12)
            streamed = update(streamed, batch)
            merged = merge(update(model.init_state(2), batch), merged)
        assert_same(streamed, merged)
        assert_same(model.apply(variables, streamed, method="finalize"), want)


def test_what_the_transformer_makes_of_batches(rng):
    """With it assignments depend on batch-mates; the difference has a bound.

    Means of a cluster are sum_i w_i f_i with weights >= 0 of sum 1, so two ways to
    weigh the same images differ by at most sum_i |w_i - w'_i| max_i |f_i|. What the
    batches change is the w_i, and nothing else.
    """
    model = tiny_model()
    variables, sets = draw_variables(model, rng), draw_sets(rng, 12)
    update = updater(model, variables)

    @quick_jit
    def assign(sets):
        def assigned(model, sets):
            return model.assignment(sets).map

        return model.apply(variables, sets, method=assigned)

    def shares(parts):
        batches = [pad_images(select(sets, part), np.nan, 12) for part in parts]
        state = model.init_state(2)
        for batch in batches:
            state = update(state, batch)
        maps = [assign(b)[..., : len(p)] for b, p in zip(batches, parts, strict=True)]
        weights = np.concatenate(maps, -1, dtype=np.float64)
        return weights / weights.sum(-1, keepdims=True), finalize(state).features

    order = np.arange(12)
    weights, whole = shares([order])
    longest = np.linalg.norm(sets.features.embeddings, axis=-1).max(-1)[:, None]
    for count in (2, 3, 12):
        split_weights, split = shares(np.split(order, count))
        difference = np.linalg.norm(split - whole, axis=-1)
        bound = np.abs(split_weights - weights).sum(-1) * longest
        assert (difference <= bound + 1e-4).all()
        assert difference.max() > 1e-2  # it is there


def test_one_image_is_itself(rng):
    """Eq. 3 and 6 as written; the official row sums shrink and turn it."""
    model = tiny_model()
    variables, sets = draw_variables(model, rng), draw_sets(rng, 1)
    fused = fuser(model, variables)(sets)
    alone = sets.features.embeddings[:, 0]
    np.testing.assert_allclose(fused.embeddings, alone, **TOLERANCE)
    np.testing.assert_array_equal(fused.features.embeddings, fused.embeddings)
    official = fuser(model.clone(row_sums="at_least_one"), variables)(sets).embeddings
    norms = np.linalg.norm(official, axis=-1)
    assert (norms < np.linalg.norm(alone, axis=-1)).all()


@pytest.mark.slow
def test_a_thousand_identical_images_are_one(rng):
    """At once, and as a stream of a thousand batches of one."""
    model = tiny_model()
    variables, sets = draw_variables(model, rng), draw_sets(rng, 1)
    thousand = jax.tree.map(lambda x: np.repeat(x, 1000, axis=1), sets)
    alone = sets.features.embeddings[:, 0]
    fused = fuser(model, variables)(thousand)
    np.testing.assert_allclose(fused.embeddings, alone, rtol=1e-4)
    update, state = updater(model, variables), model.init_state(2)
    for _ in range(1000):
        state = update(state, sets)
    # A thousand sums in float32 are off by at most 1000 x 2^-24 = 6e-5 of the whole.
    np.testing.assert_allclose(state.mass.sum(-1), 1000, rtol=6e-5)
    streamed = model.apply(variables, state, method="finalize").embeddings
    np.testing.assert_allclose(streamed, alone, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "train"), MODES)
def test_degenerate_sets_are_finite(rng, variant, train):
    """A set without images becomes 0; zero and identical embeddings stay finite."""
    sets, (run, _) = draw_sets(rng, 7), compiled(variant, train)
    embeddings, style, mask = (
        sets.features.embeddings,
        sets.features.style,
        sets.mask,
    )
    nothing = np.stack([embeddings[0], np.zeros_like(embeddings[1])])
    cases = [
        sets._replace(mask=np.array([[True] * 7, [False] * 7])),
        sets._replace(mask=np.zeros((2, 7), bool)),
        with_embeddings(sets, nothing),
        ImageSets(Features(np.ones_like(embeddings), style=np.zeros_like(style)), mask),
    ]
    for case in cases:
        leaves = jax.tree.leaves(run(case))
        assert all(np.isfinite(leaf).all() for leaf in leaves)
        embeddings = np.asarray(run(case)[1][0].embeddings)
        assert (embeddings[~case.mask.any(1)] == 0).all()


def test_without_style_the_norms_tell(rng):
    """No style is a style that all images share."""
    model, sets = tiny_model(), draw_sets(rng, 4)
    bare = sets._replace(features=Features(sets.features.embeddings))
    flat = sets._replace(
        features=Features(sets.features.embeddings, style=np.zeros((2, 4, 1, 2)))
    )
    variables = quick_jit(model.init)(jax.random.key(0), bare)
    fuse = fuser(model, variables)
    assert_same(fuse(bare), fuse(flat))


def test_drop_paths_need_a_key_and_do_something(rng):
    model = tiny_model(depth=2, drop_path_rate=0.9)
    variables, sets = draw_variables(model, rng), draw_sets(rng, 5)

    @quick_jit
    def run(key):
        return model.apply(
            variables, sets, train=True, mutable=["batch_stats"], rngs={"dropout": key}
        )[0].embeddings

    results = [run(jax.random.key(n)) for n in range(4)]
    assert len({result.tobytes() for result in map(np.asarray, results)}) > 1


def test_bad_input_is_described(rng):
    model = tiny_model()
    sets = draw_sets(rng, 3)
    shapes = jax.eval_shape(model.init, jax.random.key(0), sets)

    def run(model, sets, state=None):
        def update(variables):
            start = model.init_state(2) if state is None else state
            return model.apply(variables, start, sets, method="update")

        return jax.eval_shape(update, shapes)

    with pytest.raises(ValueError, match=r"style \[B, N, C, 2\] and mask"):
        run(model, sets._replace(mask=sets.mask[:, :2]))
    with pytest.raises(ValueError, match="embeddings must have 6 channels; got 9"):
        run(model, with_embeddings(sets, np.zeros((2, 3, 9), np.float32)))
    with pytest.raises(ValueError, match="continue a stream with the model"):
        run(model, sets, tiny_model(num_clusters=2).init_state(2))
    with pytest.raises(ValueError, match=r"needs \[\(2, 3, 6\), .* that began it"):
        model.apply(shapes, tiny_model(num_clusters=2).init_state(2), method="finalize")
    with pytest.raises(ValueError, match=r"multiple of num_heads; got 3 \+ 4 and 2"):
        run(model.clone(style_dim=3), sets)
    for field in ("values", "style_values", "style_pool", "style_activation"):
        name = field if "values" in field else field.removeprefix("style_")
        with pytest.raises(ValueError, match=f"unknown {name} 'other'; use one of"):
            run(model.clone(**{field: "other"}), sets)
    with pytest.raises(ValueError, match="unknown rounding 'other'"):
        run(model.clone(norm_rounding="other"), sets)
    with pytest.raises(ValueError, match="positions must be one of .* got 'other'"):
        run(model.clone(norm_positions="other"), sets)
