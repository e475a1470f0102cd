"""The kernel against both other domains; on CPUs it is interpreted."""

from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import AxisType

from kprpe_jax.core.features import Features
from kprpe_jax.matching import candidates as subject
from kprpe_jax.matching import sinkhorn_kernel
from kprpe_jax.matching.matchers import EarthMoversMatcher
from kprpe_jax.matching.sinkhorn import FAST, Solver, transport
from kprpe_jax.matching.sinkhorn_kernel import scale_on_chip
from tests.quick import quick_jit

CHIP = Solver(domain="pallas")


def problems(rng, pairs, n, m):
    """The query is ten times as heavy."""
    cost = rng.uniform(0, 2, (pairs, n, m)).astype(np.float32)
    a, b = (rng.uniform(0.2, 1, (pairs, x)).astype(np.float32) for x in (n, m))
    return cost, 10 * a, b


@lru_cache
def with_gradient(solver):
    """Plan, and gradients of a function of its flow."""

    def similarity(cost, a, b):
        plan = transport(cost, a, b, solver)
        return (plan.flow * jnp.cos(3 * cost)).sum(), plan

    return quick_jit(jax.grad(similarity, (0, 1, 2), has_aux=True))


def assert_same(problem, solver, others=("kernel", "log"), *, tolerance=4e-5):
    """Flow and gradients, relative to the largest number of each, and error."""
    gradients, plan = with_gradient(solver)(*problem)
    for domain in others:
        wants = with_gradient(solver._replace(domain=domain))(*problem)
        pairs = zip((*gradients, plan.flow), (*wants[0], wants[1].flow), strict=True)
        for got, want in pairs:
            assert np.abs(want).max() > 1e-3
            atol = tolerance * np.abs(want).max()
            np.testing.assert_allclose(got, want, rtol=0, atol=atol)
        atol = tolerance * problem[1].sum(1).max()
        np.testing.assert_allclose(plan.error, wants[1].error, rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("pairs", "n", "m", "unequal"),
    [
        (3, 7, 5, "partial"),  # a program for each
        *(
            pytest.param(*sizes, unequal, marks=pytest.mark.slow)
            for sizes in ((3, 7, 5), (2, 42, 42), (4, 64, 64))
            for unequal in ("partial", "query")
        ),
    ],
)
def test_same_as_other_domains(rng, pairs, n, m, unequal):
    assert_same(problems(rng, pairs, n, m), CHIP._replace(unequal=unequal))


@pytest.mark.parametrize("iterations", [1, 2, 100])
def test_same_as_the_kernel_domain(rng, iterations):
    """A program for all; after one iteration another start or order would show."""
    solver = CHIP._replace(unequal="query", iterations=iterations)
    assert_same(problems(rng, 8, 5, 17), solver, ("kernel",))


def test_zero_weights_and_nothing_that_moves(rng):
    cost, a, b = problem = problems(rng, 8, 7, 5)
    a[0], b[1], a[2], b[2] = 0, 0, 0, 0
    a[3, :4], b[3, 3:] = 0, 0
    cost[4], cost[5], cost[6, 0], cost[6, 1:] = 2, 0, 2, 0
    assert_same(problem, CHIP, ("kernel",))
    gradients, plan = with_gradient(CHIP)(*problem)
    assert not plan.flow[:3].any()
    assert not any(x[:3].any() for x in gradients)


def test_padding_is_zero(rng, monkeypatch):
    """And finite: nothing of it has to be hidden afterward."""
    kernel = jnp.exp(-20 * rng.uniform(size=(2, 7, 5)).astype(np.float32))
    weights = [jnp.full((2, n), 1 / n) for n in (7, 7, 5)]
    whole = []
    scale = sinkhorn_kernel._scale

    def scale_and_look(*references, iterations):
        scale(*references, iterations=iterations)
        jax.debug.callback(whole.append, references[-1][...])

    monkeypatch.setattr(sinkhorn_kernel, "_scale", scale_and_look)
    flow = scale_on_chip(kernel, *weights, iterations=50)
    jax.effects_barrier()
    whole = np.concatenate(whole)
    assert whole.shape == (2, 16, 16)
    np.testing.assert_array_equal(whole[:, :7, :5], flow)
    np.testing.assert_allclose(flow.sum((1, 2)), 1, rtol=1e-5)
    assert not whole[:, 7:].any()
    assert not whole[:, :, 5:].any()


def test_pairs_beside_each_other(rng):
    """Axes before the pair, `vmap`, no pair at all, and a pair without neighbors."""
    cost, a, b = problems(rng, 6, 5, 4)
    run = quick_jit(transport, static_argnums=3)
    want = run(cost, a, b, CHIP).flow
    flow = run(cost.reshape(2, 3, 5, 4), a.reshape(2, 3, 5), b.reshape(2, 3, 4), CHIP)
    np.testing.assert_allclose(flow.flow.reshape(want.shape), want, atol=1e-6)
    each = quick_jit(jax.vmap(lambda *x: transport(*x, CHIP).flow))(cost, a, b)
    np.testing.assert_allclose(each, want, atol=1e-6)
    assert run(cost[:0], a[:0], b[:0], CHIP).flow.shape == (0, 5, 4)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(7, 5), (64, 64)])
def test_on_a_simulated_tpu(rng, size):
    """Which has NaN where nothing was written."""
    cost, a, b = problems(rng, 6, *size)
    problem = np.exp(-cost), np.ones_like(a), a, 10 * b
    run = partial(scale_on_chip, *problem, iterations=20)
    with pltpu.force_tpu_interpret_mode():
        got = run(platform="tpu")
    np.testing.assert_allclose(got, run(platform="cpu"), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("lowering", "platform", "call"),
    [("cuda", "gpu", "__gpu$xla.gpu.triton"), ("tpu", "tpu", "tpu_custom_call")],
)
@pytest.mark.parametrize(("n", "m"), [(64, 64), (7, 5), (128, 100)])
def test_lowers_for_accelerators(monkeypatch, n, m, lowering, platform, call):
    """To Triton's and Mosaic's code; whether that runs is not seen here."""
    monkeypatch.setattr(sinkhorn_kernel, "kernel_platform", lambda: platform)
    solver = CHIP._replace(unequal="query")
    shapes = [jax.ShapeDtypeStruct((8, *x), jnp.float32) for x in ((n, m), (n,), (m,))]

    def distance(cost, a, b):
        return (transport(cost, a, b, solver).flow * cost).sum()

    gradient = jax.jit(jax.grad(distance, (0, 1, 2)))
    program = gradient.trace(*shapes).lower(lowering_platforms=(lowering,)).as_text()
    assert program.count(f"@{call}") == 1  # no kernel and no loop in the backward pass


@pytest.mark.slow
def test_devices_compare_their_own_queries(rng):
    """XLA cannot divide a kernel among devices: the second stage does."""
    mesh = jax.make_mesh((4, 2), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)

    def draw(count):
        embeddings = rng.normal(size=(count, 6)).astype(np.float32)
        return Features(embeddings, rng.normal(size=(count, 4, 6)).astype(np.float32))

    queries, gallery = draw(8), draw(10)
    rows = np.stack([rng.permutation(10)[:3] for _ in range(8)])
    solver = FAST._replace(domain="pallas", iterations=20)
    alone = EarthMoversMatcher(solver=solver._replace(domain="kernel"))
    want = alone.score(queries, gallery, rows)
    shared = EarthMoversMatcher(solver=solver, mesh=mesh)
    got = shared.score(queries, gallery, rows)
    np.testing.assert_allclose(got, want, atol=1e-5)
    query, candidates = (
        subject.take_rows(faces, at, mesh)
        for faces, at in ((queries, np.arange(8)[:, None]), (gallery, rows))
    )
    options = "apc", None, solver, mesh
    scores = subject.match_chunk.lower(query, candidates, *options).compile()
    gathers = [x for x in scores.as_text().splitlines() if " all-gather(" in x]
    assert len(gathers) == 1  # of the scores
    assert "f32[8,3]" in gathers[0]


@pytest.mark.parametrize(
    ("change", "size", "message"),
    [
        (dict(gradient="unrolled"), 2, "domain 'pallas' keeps nothing of its iter"),
        (dict(epsilon=0.01), 2, "at least 0.025 .* got 0.01; use domain='log'"),
        (dict(start_epsilon=1.0), 2, "the domain 'log'; got 1.0, 0.05 and 'pallas'"),
        (dict(), 128, "at most 128 patches a side on chip; got 129 and 129"),
    ],
)
def test_what_the_kernel_does_not_do(change, size, message):
    weights = jnp.ones(size)
    with pytest.raises(ValueError, match=message):
        transport(jnp.ones((size, size)), weights, weights, CHIP._replace(**change))
