"""Flows and their gradients by OTT-JAX and by our own loop: error and time.

    python -m benchmarks transport [--pairs 16 --patches 49 --rounds 5]

Each way solves the same problems of cosine distances; the error is that of the
similarity and of its gradient in the costs, against a solution in float64 that has
converged. `zeros`: a fifth of the weights is zero. `blocks`: patches of two kinds, of
distance 0 among their kind and 2 to the other. "stopped": the program ends with an
error. Times are of the processor, as ratios.
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from benchmarks import harness
from kprpe_jax.commands.options import positive
from kprpe_jax.matching.sinkhorn import Solver, transport

EPSILON, ITERATIONS = 0.05, 100
OWN = {
    f"{domain}, {gradient}": Solver(
        EPSILON, ITERATIONS, domain=domain, gradient=gradient, unequal="query"
    )
    for domain in ("log", "kernel")
    for gradient in ("implicit", "unrolled")
}


def ott_flow(cost: Array, a: Array, b: Array, *, implicit: bool) -> Array:
    """Flow [N, M] as OTT alone gives it, with OTT's own gradient."""
    from ott.geometry.geometry import Geometry
    from ott.problems.linear.linear_problem import LinearProblem
    from ott.solvers.linear.implicit_differentiation import ImplicitDiff
    from ott.solvers.linear.sinkhorn import Sinkhorn

    algorithm = Sinkhorn(
        threshold=0.0,
        min_iterations=ITERATIONS,
        max_iterations=ITERATIONS,
        inner_iterations=ITERATIONS,
        implicit_diff=ImplicitDiff() if implicit else None,
    )
    geometry = Geometry(cost_matrix=cost, epsilon=EPSILON)
    return algorithm(LinearProblem(geometry, a=a, b=b)).matrix


def make_problems(kind: str, pairs: int, patches: int) -> tuple[np.ndarray, ...]:
    """Costs [P, N, N] in [0, 2] and weights [P, N] of both sides, of total 1."""
    rng = np.random.default_rng(0)
    sides = rng.normal(size=(2, pairs, patches, 64)) + rng.normal(size=(pairs, 1, 64))
    sides /= np.linalg.norm(sides, axis=-1, keepdims=True)
    cost = 1 - sides[0] @ sides[1].swapaxes(1, 2)
    if kind == "blocks":
        kinds = rng.integers(2, size=(2, pairs, patches))
        cost[:] = 2.0 * (kinds[0][:, :, None] != kinds[1][:, None])
    weights = rng.uniform(0.2, 1, (2, pairs, patches))
    if kind == "zeros":
        weights[0, :, : patches // 5] = weights[1, :, -(patches // 5) :] = 0
    weights /= weights.sum(-1, keepdims=True)
    return tuple(x.astype(np.float32) for x in (cost, *weights))


def exact(cost: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[float, np.ndarray]:
    """Similarity of a pair and its gradient in the cost, in float64."""
    rows, columns = np.flatnonzero(a), np.flatnonzero(b)
    c, x, y = (
        np.float64(v) for v in (cost[np.ix_(rows, columns)], a[rows], b[columns])
    )
    kernel, v = np.exp(-c / EPSILON), np.ones(len(y))
    for _ in range(20_000):
        u = x / (kernel @ v)
        v, before = y / (u @ kernel), v
        if np.abs(v / before - 1).max() < 1e-13:
            break
    flow = u[:, None] * kernel * v
    pull = flow * (1 - c)
    system = np.block([[np.diag(flow.sum(1)), flow], [flow.T, np.diag(flow.sum(0))]])
    w = np.linalg.pinv(system) @ np.concatenate([pull.sum(1), pull.sum(0)])
    gradient = np.zeros(cost.shape)
    gradient[np.ix_(rows, columns)] = (
        flow * (w[: len(x), None] + w[len(x) :]) - pull
    ) / EPSILON - flow
    return float(pull.sum()), gradient


def measure(
    flow: Callable[..., Array], problems: tuple, rounds: int
) -> tuple[float, float, float] | None:
    """Errors of value and gradient, and seconds of both; None: the program stopped."""

    def similarity(cost: Array, a: Array, b: Array) -> Array:
        return (flow(cost, a, b) * (1 - cost)).sum((1, 2))

    def total(cost: Array, a: Array, b: Array) -> tuple[Array, Array]:
        each = similarity(cost, a, b)
        return each.sum(), each

    run = jax.jit(jax.value_and_grad(total, has_aux=True))
    solved = [exact(*pair) for pair in zip(*problems, strict=True)]
    want, want_gradient = (np.array(x) for x in zip(*solved, strict=True))
    try:
        (_, got), gradient = jax.block_until_ready(run(*problems))
    except jax.errors.JaxRuntimeError:
        return None
    scale = np.abs(want_gradient).max()
    seconds = harness.time_variants(
        {"": partial(run, *problems)}, rounds=rounds, clock=harness.device_clock()
    )
    return (
        float(np.abs(np.asarray(got) - want).max()),
        float(np.abs(np.asarray(gradient) - want_gradient).max() / scale),
        float(np.median(seconds[""])),
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--pairs", type=positive, default=16, help="problems (16)")
    parser.add_argument("--patches", type=positive, default=49, help="a side (49)")
    parser.add_argument("--rounds", type=positive, default=5, help="timed calls (5)")


def run(options: argparse.Namespace) -> None:
    """Measure and print a table."""
    ways = {
        f"OTT's own, {name}": jax.vmap(partial(ott_flow, implicit=name == "implicit"))
        for name in ("implicit", "unrolled")
    } | {
        name: lambda cost, a, b, solver=solver: transport(cost, a, b, solver).flow
        for name, solver in OWN.items()
    }
    sys.stdout.write(
        "| problems | way | value off by | gradient off by | time |\n"
        "|---|---|---|---|---|\n"
    )
    for kind in ("positive", "zeros", "blocks"):
        problems = make_problems(kind, options.pairs, options.patches)
        problems = tuple(map(jnp.asarray, problems))
        found = {n: measure(flow, problems, options.rounds) for n, flow in ways.items()}
        unit = found["log, implicit"][2]
        for name, result in found.items():
            cells = "stopped | | "
            if result is not None:
                value, gradient, seconds = result
                cells = f"{value:.0e} | {gradient:.0e} | {seconds / unit:.2f}"
            sys.stdout.write(f"| {kind} | {name} | {cells} |\n")
            sys.stdout.flush()
