import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.core.features import Features
from kprpe_jax.matching import two_image as subject
from kprpe_jax.matching.candidates import score_candidates
from kprpe_jax.matching.nearest import Ranking
from kprpe_jax.matching.patch_encoder import PairEncoder
from kprpe_jax.matching.two_image import (
    OneImage,
    PairFeatures,
    SameOrNot,
    TwoLinear,
    feature_similarity,
    same_or_not_loss,
    same_probability,
)
from kprpe_jax.matching.two_stage import rank_again, two_stage
from tests.quick import quick_jit

PATCHES, WIDTH, DIM = 3, 4, 5
ENCODER = PairEncoder(
    1, 2, mlp_dim=4, width=WIDTH, num_patches=PATCHES, head_dim=3, dropout_rate=0.0
)


encode = quick_jit(lambda v, images: ENCODER.apply(v, *images, train=False))


def random_variables(model, rng, *images):
    shapes = jax.eval_shape(model.init, jax.random.key(0), *images)
    variables = jax.tree.map(
        lambda s: rng.normal(0, 0.5, s.shape).astype(np.float32), shapes
    )
    if "batch_stats" in variables:
        variables["batch_stats"] = jax.tree.map(np.exp, variables["batch_stats"])
    return variables


def tokens_of(variables, *images):
    return encode({"params": variables["params"]["encoder"]}, images)


def slow_norm(x, params):
    x = np.asarray(x, np.float64)
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(var + 1e-5) * params["scale"] + params["bias"]


@pytest.fixture
def pair(rng):
    return rng.normal(size=(2, 4, PATCHES, WIDTH)).astype(np.float32)


def test_one_image_is_its_class_token(pair, rng):
    model = OneImage(ENCODER)
    variables = random_variables(model, rng, pair[0])
    got = quick_jit(model.apply)(variables, pair[0])
    tokens = tokens_of(variables, pair[0])
    want = slow_norm(tokens.summary, variables["params"]["norm"])
    np.testing.assert_allclose(got, want, atol=1e-4)


def test_same_or_not_reads_the_class_token(pair, rng):
    model = SameOrNot(ENCODER)
    variables = random_variables(model, rng, *pair)
    got = quick_jit(model.apply)(variables, *pair)
    tokens, head = tokens_of(variables, *pair), variables["params"]["head"]
    want = slow_norm(tokens.summary, variables["params"]["norm"])
    np.testing.assert_allclose(got, want @ head["kernel"] + head["bias"], atol=1e-4)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("norm", subject.HEAD_NORMS)
def test_two_linear_reads_all_patches_of_a_side(pair, rng, norm, shared):
    model = TwoLinear(ENCODER, DIM, norm, shared)
    variables = random_variables(model, rng, *pair)
    got = quick_jit(model.apply)(variables, *pair)
    tokens, params = tokens_of(variables, *pair), variables["params"]
    features = []
    for index, patches in enumerate(tokens.patches):
        part = "" if shared else str(index + 1)
        head, affine = params[f"head{part}"], params[f"norm{part}"]
        x = np.stack([np.concatenate(list(face)) for face in patches])
        x = x @ head["kernel"] + head["bias"]
        if norm == "layer":
            x = slow_norm(x, affine)
        else:
            stats = variables["batch_stats"][f"norm{part}"]
            x = (x - stats["mean"]) / np.sqrt(stats["var"] + 1e-5)
            x = x * affine["scale"] + affine["bias"]
        features.append(x)
    np.testing.assert_allclose(got.first, features[0], atol=1e-4)
    np.testing.assert_allclose(got.second, features[1], atol=1e-4)
    trained = np.concatenate(features)
    if norm == "batch":
        trained = slow_norm(trained, params["loss_norm"])
    np.testing.assert_allclose(got.trained, trained, atol=1e-3)
    assert ("batch_stats" in variables) == (norm == "batch")


def test_features_depend_on_the_other_image(pair, rng):
    model = TwoLinear(ENCODER, DIM)
    variables = random_variables(model, rng, *pair)
    call = quick_jit(model.apply)
    one, other = call(variables, *pair), call(variables, pair[0], pair[1][::-1])
    assert np.abs(one.first - other.first).max() > 1e-3


def test_unknown_norm(pair):
    with pytest.raises(ValueError, match="unknown head_norm 'group'; use one of"):
        jax.eval_shape(TwoLinear(ENCODER, DIM, "group").init, jax.random.key(0), *pair)


def test_binary_cross_entropy():
    logits, same = jnp.asarray([[0.3, -1.0], [2.0, 2.5]]), jnp.asarray([True, False])
    odds = np.asarray(logits[:, 1] - logits[:, 0], np.float64)
    likely = 1 / (1 + np.exp(-odds))
    want = -np.mean([np.log(likely[0]), np.log(1 - likely[1])])
    np.testing.assert_allclose(same_or_not_loss(logits, same), want, rtol=1e-6)
    np.testing.assert_allclose(same_probability(logits), likely, rtol=1e-6)


def test_similarity_of_a_zero_feature_is_zero_with_a_finite_gradient(rng):
    first = jnp.zeros((2, DIM)).at[1].set(rng.normal(size=DIM))

    def total(x):
        return feature_similarity(PairFeatures(x, 2 * first, x)).sum()

    value, gradient = quick_jit(jax.value_and_grad(total))(first)
    np.testing.assert_allclose(value, 1.0, rtol=1e-6)
    assert np.isfinite(gradient).all()


@jax.jit
def first_minus_second(first, second):
    """A score that tells its arguments apart."""
    return first.sum((1, 2)) - 10 * second.sum((1, 2))


@pytest.mark.parametrize("chunk", [1, 2, 8])
def test_candidates_are_scored_and_ranked_again(rng, chunk):
    queries, gallery = (
        rng.uniform(size=(n, PATCHES, WIDTH)).astype(np.float32) for n in (5, 7)
    )
    rows = np.stack([rng.permutation(7)[:3] for _ in range(5)]).astype(np.int32)
    rows[2, 1] = -1
    got = score_candidates(first_minus_second, queries, gallery, rows, chunk=chunk)
    assert got[2, 1] == -np.inf
    want = queries.sum((1, 2))[:, None] - 10 * gallery[rows].sum((2, 3))
    np.testing.assert_allclose(got[rows >= 0], want[rows >= 0], rtol=1e-4)

    cosine = rng.uniform(size=rows.shape).astype(np.float32)
    cosine[2, 1] = -np.inf
    ranking = rank_again(Ranking(rows, cosine), got, alpha=0.7)
    for query in range(5):
        mixed = {
            row: 0.7 * got[query, at] + 0.3 * cosine[query, at]
            for at, row in enumerate(rows[query])
        }
        assert list(ranking.rows[query]) == sorted(mixed, key=lambda r: -mixed[r])


def test_the_second_stage_takes_a_network(rng):
    """By its score alone the candidates of every query stand in that order."""
    queries, gallery = (
        Features(
            rng.normal(size=(n, 6)).astype(np.float32),
            rng.uniform(size=(n, PATCHES, WIDTH)).astype(np.float32),
        )
        for n in (3, 7)
    )

    class ByPatches:
        def score(self, queries, gallery, rows):
            sides = queries.patches, gallery.patches
            return score_candidates(first_minus_second, *sides, rows)

    options = dict(k=4, ranks=6, matcher=ByPatches())
    found = two_stage(queries, gallery, alpha=1.0, **options)
    cosine = two_stage(queries, gallery, alpha=0.0, **options)
    totals = gallery.patches.sum((1, 2))
    for query in range(3):
        want = sorted(cosine.rows[query, :4], key=lambda row: totals[row])
        assert list(found.rows[query]) == [*want, *cosine.rows[query, 4:]]
    assert (found.rows != cosine.rows).any()


def test_bad_candidates(rng):
    faces = rng.normal(size=(3, PATCHES, WIDTH)).astype(np.float32)
    with pytest.raises(ValueError, match=r"rows must lie in \[0, 3\).*got 0 to 3"):
        score_candidates(first_minus_second, faces, faces, np.array([[0, 3]] * 3))
    broken = np.where(np.arange(3)[:, None, None] == 1, np.nan, faces)
    with pytest.raises(ValueError, match="first of query 1 and gallery row 0; find"):
        score_candidates(first_minus_second, broken, faces, np.array([[0, 2]] * 3))
    empty = score_candidates(first_minus_second, faces, faces, np.zeros((3, 0), int))
    assert empty.shape == (3, 0)
