import jax
import numpy as np
import pytest
from jax.test_util import check_grads

from kprpe_jax.position import lookup as lookup_lib
from kprpe_jax.position.buckets import compute_buckets
from kprpe_jax.position.lookup import (
    lookup,
    lookup_rows,
    membership,
    num_buckets,
    sum_pairs,
    sum_rows,
)

GRID, TOKENS = (2, 3), 6


@pytest.fixture(params=["product", "cross", "euclidean"])
def buckets(request):
    return compute_buckets(GRID, request.param, 1.2)


def pairs(buckets):
    """(i, j, column of the table) for every read."""
    start = 0
    for part in buckets:
        for i in range(TOKENS):
            for j in range(TOKENS):
                yield i, j, start + part.ids[i, j]
        start += part.num_buckets


def test_lookup(buckets, rng):
    table = rng.normal(size=(2, 3, num_buckets(buckets))).astype(np.float32)
    want = np.zeros((2, 3, TOKENS, TOKENS), np.float32)
    for i, j, k in pairs(buckets):
        want[..., i, j] += table[..., k]
    np.testing.assert_allclose(lookup(table, buckets), want, rtol=1e-6, atol=1e-6)
    on_tpu = lookup_lib._lookup_product(table, buckets)
    np.testing.assert_allclose(on_tpu, want, rtol=1e-6, atol=1e-6)


def test_sum_pairs(buckets, rng):
    values = rng.normal(size=(2, 3, TOKENS, TOKENS)).astype(np.float32)
    want = np.zeros((2, 3, num_buckets(buckets)), np.float32)
    for i, j, k in pairs(buckets):
        want[..., k] += values[..., i, j]
    np.testing.assert_allclose(sum_pairs(values, buckets), want, rtol=1e-5, atol=1e-5)


def test_lookup_rows(buckets, rng):
    table = rng.normal(size=(2, TOKENS, num_buckets(buckets))).astype(np.float32)
    want = np.zeros((2, TOKENS, TOKENS), np.float32)
    for i, j, k in pairs(buckets):
        want[:, i, j] += table[:, i, k]
    np.testing.assert_allclose(lookup_rows(table, buckets), want, rtol=1e-6, atol=1e-6)


def test_sum_rows(buckets, rng):
    values = rng.normal(size=(2, TOKENS, TOKENS)).astype(np.float32)
    want = np.zeros((2, TOKENS, num_buckets(buckets)), np.float32)
    for i, j, k in pairs(buckets):
        want[:, i, k] += values[:, i, j]
    np.testing.assert_allclose(sum_rows(values, buckets), want, rtol=1e-5, atol=1e-6)


def test_membership_has_one_bucket_per_pair_and_table(buckets):
    np.testing.assert_array_equal(membership(buckets).sum(0), len(buckets))


def test_gradients(buckets, rng):
    size = num_buckets(buckets)
    shared = rng.normal(size=(2, size)).astype(np.float32)
    rows = rng.normal(size=(2, TOKENS, size)).astype(np.float32)
    values = rng.normal(size=(2, TOKENS, TOKENS)).astype(np.float32)
    for function, argument in (
        (lookup, shared),
        (sum_pairs, values),
        (lookup_rows, rows),
        (sum_rows, values),
    ):
        squared = lambda x, f=function: (f(x, buckets) ** 2).sum()  # noqa: E731
        check_grads(squared, (argument,), order=1, modes="rev", eps=0.1, rtol=1e-2)


@pytest.mark.parametrize(
    ("read", "plain_read", "lead"),
    [
        (lookup, lookup_lib._lookup_gather, ()),
        (lookup_rows, lookup_rows.__wrapped__, (TOKENS,)),
    ],
)
def test_gradient_equals_autodiff(buckets, rng, read, plain_read, lead):
    """The hand-written rules against the scatter that autodiff makes of a gather."""
    table = rng.normal(size=(2, *lead, num_buckets(buckets))).astype(np.float32)
    weight = rng.normal(size=(2, TOKENS, TOKENS)).astype(np.float32)
    ours, plain = (
        jax.grad(lambda t, f=f: (f(t, buckets) * weight).sum())(table)
        for f in (read, plain_read)
    )
    np.testing.assert_allclose(ours, plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("platform", "gathers"), [("tpu", False), ("cuda", True)])
def test_tpus_multiply_where_others_gather(buckets, platform, gathers):
    table = jax.ShapeDtypeStruct((2, num_buckets(buckets)), "float32")
    read = jax.jit(lookup, static_argnums=1).trace(table, buckets)
    text = read.lower(lowering_platforms=(platform,)).as_text()
    assert ("stablehlo.gather" in text) == gathers
    assert ("stablehlo.dot_general" in text) == (not gathers)
