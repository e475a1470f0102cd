import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ott.geometry.geometry import Geometry
from ott.problems.linear.linear_problem import LinearProblem
from ott.solvers.linear.sinkhorn import Sinkhorn
from scipy.optimize import linprog

from kprpe_jax.matching.sinkhorn import FAST, UNEQUAL, Solver, parse_solver, transport
from tests.quick import quick_jit

KERNEL = Solver(domain="kernel")
SOLVERS = [
    Solver(domain=domain, gradient=gradient, unequal=unequal, iterations=60)
    for domain, gradient, unequal in (
        ("log", "implicit", "query"),
        ("log", "unrolled", "partial"),
        ("kernel", "implicit", "partial"),
        ("kernel", "implicit", "query"),
        ("kernel", "unrolled", "partial"),
    )
]
run = quick_jit(transport, static_argnums=3)


def problems(rng, pairs, n, m, *, equal=True):
    cost = rng.uniform(0, 2, (pairs, n, m)).astype(np.float32)
    a, b = (rng.uniform(0.2, 1, (pairs, x)).astype(np.float32) for x in (n, m))
    if equal:
        a, b = (x / x.sum(1, keepdims=True) for x in (a, b))
    return cost, a, b


def exact_distance(cost, a, b):
    """Eqs. 3.1-3.4 as a linear program."""
    n, m = cost.shape
    a, b = np.float64(a), np.float64(b)
    rows = np.kron(np.eye(n), np.ones(m))
    columns = np.kron(np.ones(n), np.eye(m))
    result = linprog(
        cost.ravel(),
        A_ub=np.concatenate([rows, columns]), b_ub=np.concatenate([a, b]),
        A_eq=np.ones((1, n * m)), b_eq=[min(a.sum(), b.sum())],
    )  # fmt: skip
    return result.fun


@pytest.mark.parametrize("equal", [True, False])
def test_linear_program_as_epsilon_goes_to_zero(rng, equal):
    cost, a, b = problems(rng, 3, 6, 4, equal=equal)
    a[1] *= 5  # either side is the lighter one
    exact = np.array([exact_distance(cost[i], a[i], b[i]) for i in range(3)])
    off = []
    for epsilon in (0.2, 0.03, 0.005):
        plan = run(cost, a, b, Solver(epsilon, 600, start_epsilon=0.5))
        off.append(np.abs((plan.flow * cost).sum((1, 2)) - exact).max())
        assert float(plan.error.max()) < 1e-4
    assert off[0] > 3 * off[1] > 9 * off[2]
    assert off[2] < 2e-3


def test_flow_keeps_to_the_weights(rng):
    cost, a, b = problems(rng, 4, 6, 4, equal=False)
    for solver in (Solver(0.2), KERNEL._replace(epsilon=0.2)):
        flow, error = run(cost, a, b, solver)
        assert float(flow.min()) >= 0
        assert (flow.sum(2) <= a + 1e-5).all()
        assert (flow.sum(1) <= b + 1e-5).all()
        total = np.minimum(a.sum(1), b.sum(1))
        np.testing.assert_allclose(flow.sum((1, 2)), total, rtol=1e-5)
        assert float(error.max()) < 1e-4
    query = run(cost, a, b, solver._replace(unequal="query")).flow
    np.testing.assert_allclose(query.sum(2), a, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "solver", [Solver(iterations=7), KERNEL._replace(iterations=7)]
)
def test_same_as_ott_pair_by_pair(rng, solver):
    """With as many pairs as patches, where OTT outside of vmap mixes both up."""
    cost, a, b = problems(rng, 5, 5, 5)
    flow = run(cost, a, b, solver._replace(unequal="query")).flow
    ott = Sinkhorn(
        threshold=0.0, min_iterations=7, max_iterations=7, inner_iterations=7
    )
    for row in range(5):
        geometry = Geometry(cost_matrix=jnp.asarray(cost[row]), epsilon=0.05)
        want = ott(LinearProblem(geometry, a=a[row], b=b[row])).matrix
        np.testing.assert_allclose(flow[row], want, atol=2e-6)


@pytest.mark.parametrize("solver", [Solver(), KERNEL])
def test_a_pair_does_not_depend_on_its_neighbors(rng, solver):
    cost, a, b = problems(rng, 6, 7, 9)
    together = jax.jit(transport, static_argnums=3)(cost, a, b, solver)
    cost[1:], a[3:] = 2 * cost[:0:-1], 0
    others = jax.jit(transport, static_argnums=3)(cost, a, b, solver)
    alone = jax.jit(transport, static_argnums=3)(cost[0], a[0], b[0], solver)
    np.testing.assert_array_equal(others.flow[0], together.flow[0])
    np.testing.assert_array_equal(others.error[0], together.error[0])
    # In a batch of another size XLA may add up in another order.
    np.testing.assert_allclose(alone.flow, together.flow[0], atol=1e-6)


def value_and_gradient(solver):
    def similarity(cost, a, b):
        return (transport(cost, a, b, solver).flow * (1 - cost)).sum()

    return quick_jit(jax.value_and_grad(similarity, (0, 1, 2)))


@pytest.mark.slow
@pytest.mark.parametrize("solver", SOLVERS, ids=lambda x: "-".join(map(str, x[2:5])))
def test_gradient(rng, solver):
    """Against differences, and finite at all kinds of degenerate pairs."""
    compute = value_and_gradient(solver)
    regular = problems(rng, 7, 5, 4)
    value, gradient = compute(*regular)
    directions = problems(rng, 7, 5, 4)
    # The weights go where they still have one total.
    pairs = list(zip(directions, regular, strict=True))
    directions = [directions[0], *(x - y for x, y in pairs[1:])]
    step, both = 1e-2, list(zip(regular, directions, strict=True))
    ahead, behind = (
        compute(*(x + sign * step * d for x, d in both))[0] for sign in (1, -1)
    )
    slope = sum((g * d).sum() for g, d in zip(gradient, directions, strict=True))
    np.testing.assert_allclose(slope, (ahead - behind) / (2 * step), rtol=5e-3)

    cost, a, b = regular
    a[0], b[1], a[2], b[2] = 0, 0, 0, 0
    a[3, :3], b[3, 2:] = 0, 0
    cost[4], cost[5], cost[6, 0], cost[6, 1:] = 2, 0, 2, 0
    value, gradient = compute(cost, a, b)
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in gradient)
    assert not any(g[:3].any() for g in gradient)
    assert not run(cost, a, b, solver).flow[:3].any()


def test_far_patches_at_the_least_epsilon_of_the_kernel(rng):
    """exp(-2 / 0.025) only just is a float32."""
    cost, a, b = problems(rng, 3, 5, 4)
    cost[0], cost[1, 0], cost[1, 1:], cost[2, :, 0], cost[2, :, 1:] = 2, 2, 0, 2, 0
    solver = KERNEL._replace(epsilon=0.025)
    plan = run(cost, a, b, solver)
    assert float(plan.error.max()) < 1e-4
    _, gradient = value_and_gradient(solver._replace(gradient="unrolled"))(cost, a, b)
    assert all(np.isfinite(g).all() for g in gradient)


@pytest.mark.parametrize("unequal", UNEQUAL)
@pytest.mark.parametrize("domain", ["kernel", "pallas"])
def test_hardest_problems_are_solved_as_in_the_log_domain(domain, unequal, rng):
    """Patches equal or opposite, one to all, and ten times the weight on one side."""
    cost = 2 * (rng.uniform(size=(8, 16, 16)) > 0.3).astype(np.float32)
    cost[:, 0] = 2
    a, b = (rng.uniform(0.01, 1, (8, 16)).astype(np.float32) for _ in range(2))
    a /= a.sum(1, keepdims=True)
    b /= b.sum(1, keepdims=True)
    solver = Solver(0.025, domain=domain, unequal=unequal)
    for heavy in (1, 10):
        plan = run(cost, heavy * a, b, solver)
        log = run(cost, heavy * a, b, solver._replace(domain="log"))
        np.testing.assert_allclose(plan.flow, log.flow, atol=2e-4)
        np.testing.assert_allclose(plan.error, log.error, atol=2e-4)


def test_options(rng):
    cost, a, b = problems(rng, 2, 5, 4)
    for scale in ("mean", "max"):
        solver = KERNEL._replace(scale_cost=scale)
        flow = run(cost, a, b, solver).flow
        np.testing.assert_allclose(flow, run(3 * cost, a, b, solver).flow, atol=1e-5)
        size = getattr(cost, scale)((1, 2))[:, None, None]
        np.testing.assert_allclose(flow, run(cost / size, a, b, KERNEL).flow, atol=1e-5)
    direct, annealed = (
        run(cost, a, b, Solver(0.005, 100, start_epsilon=start)).error.max()
        for start in (None, 0.5)
    )
    assert annealed < direct / 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(domain="dense"), "unknown domain 'dense'; use one of"),
        (dict(gradient="none"), "unknown gradient"),
        (dict(unequal="both"), "unknown unequal"),
        (dict(scale_cost="std"), "unknown scale_cost"),
        (dict(epsilon=0.0), "epsilon must be positive .* got 0.0 and 100"),
        (dict(iterations=0), "iterations at least 1; got 0.05 and 0"),
        (dict(domain="kernel", epsilon=0.01), "at least 0.025 .* got 0.01; use domain"),
        (dict(start_epsilon=0.01), "start_epsilon must be at least epsilon"),
        (dict(domain="kernel", start_epsilon=1.0), "the domain 'log'; got 1.0"),
    ],
)
def test_settings_that_do_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        transport(jnp.ones((2, 2)), jnp.ones(2), jnp.ones(2), Solver(**change))


def test_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"transport: .* got \(2, 3\), \(3,\) and"):
        transport(jnp.ones((2, 3)), jnp.ones(3), jnp.ones(2))


def test_settings_as_text():
    assert parse_solver("epsilon=0.1") == FAST._replace(epsilon=0.1)
    text = "domain=log,epsilon=0.01,iterations=500"
    assert parse_solver(text) == FAST._replace(
        domain="log", epsilon=0.01, iterations=500
    )
    for bad in ("", "log", "epsilon=small", "iterations=1.5", "gradient=implicit"):
        with pytest.raises(ValueError, match="--solver must be like domain=log"):
            parse_solver(bad)
    with pytest.raises(ValueError, match="epsilon must be at least 0.025 in the kern"):
        parse_solver("epsilon=0.01")
