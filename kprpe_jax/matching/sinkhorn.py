"""Entropic optimal transport between two weighted sets: the earth mover's flow.

OTT-JAX is the definition, in the log domain. A short loop in the kernel domain computes
the same many times faster where epsilon allows it. The number of iterations is fixed,
so that the flow of a pair never depends on the pairs next to it.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kprpe_jax.core.checks import check_option
from kprpe_jax.matching.implicit_gradient import attach_gradient

DOMAINS = ("log", "kernel", "pallas")
GRADIENTS = ("implicit", "unrolled")
UNEQUAL = ("partial", "query")
SCALES = ("none", "mean", "max")
# exp(-2 / 0.025), of opposite embeddings, is still a float32; below it, flow is lost.
KERNEL_LEAST_EPSILON = 0.025
_TINY = 1e-10  # of the heavier side: takes the place of zero, which has no logarithm
LEAST_SUM = float(np.finfo(np.float32).tiny)  # that a weight can be divided by


class Solver(NamedTuple):
    """How a transport problem is solved; static under `jax.jit`.

    `Solver()`, the default of `transport`, `earth_movers` and `match_faces`, takes any
    epsilon and any weights. `FAST`, the default of rankings, has
    domain='kernel' and unequal='query': many times faster, and the same flow up to
    round-off where both sides' weights have one total, as those of `patch_weights` do;
    where they have not, all of the query's weight moves, and only the lighter side's
    with `Solver()`.

    Attributes:
      epsilon: of the entropy, > 0, in units of the scaled cost; the flow of least cost
        is approached as it goes to 0.
      iterations: >= 1, always all of them; each fits the gallery's weights, then the
        query's.
      domain: `log`, by OTT; or `kernel`, without logarithms, for epsilon of at least
        0.025 (OTT's own is slower and loses gradients at zero weights); or
        `pallas`, the same on chip, for GPUs and TPUs and at most 128 patches a side.
      gradient: `implicit`, of the solution that the iterations approach, in constant
        memory; or `unrolled`, of the iterations themselves.
      unequal: what holds where the totals of the weights differ. `partial`: the lighter
        side is moved whole, the heavier keeps the rest (Eqs. 3.2-3.4); `query`: the
        query's weights, as in the official code, at half the way between two problems
        that have no common solution. The same where they agree, and cheaper.
      scale_cost: divides each pair's costs by their `mean` or `max`, or by nothing.
      start_epsilon: larger than epsilon: decays from here to epsilon in the first half
        of the iterations, which a small epsilon needs to converge; only in the log
        domain.
    """

    epsilon: float = 0.05
    iterations: int = 100
    domain: str = "log"
    gradient: str = "implicit"
    unequal: str = "partial"
    scale_cost: str = "none"
    start_epsilon: float | None = None


# Weights that sum to 1 on both sides need nothing more; see `Solver`.
FAST = Solver(domain="kernel", unequal="query")


class Plan(NamedTuple):
    """What is moved.

    Attributes:
      flow: float32 [..., N, M], f_ij >= 0.
      error: float32 [...], how far the sums of the flow are from the weights, in total
        (L1); 0 = converged.
    """

    flow: Array
    error: Array


def transport(cost: Array, a: Array, b: Array, solver: Solver = Solver()) -> Plan:  # noqa: B008
    """Flow of least cost between weighted sets, smoothed by entropy.

    Where all weights of a side are zero nothing is moved, and all gradients are zero. A
    single weight of zero moves 1e-10 of the total at most. Values are not checked, the
    function being compiled as a rule: a negative weight counts as zero and stands in
    `error`; a cost or a weight that is NaN makes flow and error of its own pair NaN.

    Source: DeepFace-EMD, Eqs. 3.1-3.4; Cuturi, Sinkhorn distances, 2013.
    Args:
      cost: [..., N, M], d_ij from query patch i to gallery patch j.
      a: [..., N], w_q >= 0, weights of the query.
      b: [..., M], w_g >= 0, weights of the gallery.
      solver: the settings.
    Returns: the flow, differentiable in cost and weights, and its error.
    Raises: ValueError: shapes that do not fit; settings that do not.
    """
    check_solver(solver)
    if cost.shape[-2:] != (a.shape[-1], b.shape[-1]):
        raise ValueError(
            "transport: cost must be [..., N, M] for weights [..., N] and [..., M]; "
            f"got {cost.shape}, {a.shape} and {b.shape}; give one weight per patch."
        )
    lead = jnp.broadcast_shapes(cost.shape[:-2], a.shape[:-1], b.shape[:-1])

    def flat(x: Array, own: int) -> Array:
        shape = x.shape[x.ndim - own :]
        return jnp.broadcast_to(x, (*lead, *shape)).reshape(-1, *shape)

    inputs = (flat(x.astype(jnp.float32), n) for x, n in ((cost, 2), (a, 1), (b, 1)))
    *problem, moves, mass = jax.vmap(partial(_pose, solver=solver))(*inputs)
    flow, (_, _, a, b) = _solve(*problem, solver), problem
    plan = jax.vmap(partial(_plan, sizes=cost.shape[-2:]))(flow, a, b, moves, mass)
    return Plan(*(x.reshape(*lead, *x.shape[1:]) for x in plan))


def parse_solver(text: str) -> Solver:
    """Read settings such as "domain=log,epsilon=0.01,iterations=500".

    Args:
      text: fields of `Solver` with their values, separated by commas; the others are
        those of `FAST`.
    Raises: ValueError: an unknown field, a value of another type; as `check_solver`.
    """
    types = dict(domain=str, epsilon=float, iterations=int)
    given: dict[str, str | float | int] = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        try:
            given[name] = types[name](value)
        except (KeyError, ValueError):
            raise ValueError(
                "--solver must be like domain=log,epsilon=0.05,iterations=100; got "
                f"{part!r}."
            ) from None
    solver = FAST._replace(**given)
    check_solver(solver)
    return solver


def check_solver(solver: Solver) -> None:
    """Raise ValueError unless the settings fit together."""
    choices = (
        ("domain", DOMAINS),
        ("gradient", GRADIENTS),
        ("unequal", UNEQUAL),
        ("scale_cost", SCALES),
    )
    for name, known in choices:
        check_option("Solver", name, getattr(solver, name), known)
    if solver.iterations < 1 or not solver.epsilon > 0:
        raise ValueError(
            "Solver: epsilon must be positive and iterations at least 1; got "
            f"{solver.epsilon} and {solver.iterations}."
        )
    if solver.domain != "log" and solver.epsilon < KERNEL_LEAST_EPSILON:
        raise ValueError(
            f"Solver: epsilon must be at least {KERNEL_LEAST_EPSILON} in the kernel "
            f"domain; got {solver.epsilon}; use domain='log'."
        )
    if solver.domain == "pallas" and solver.gradient == "unrolled":
        raise ValueError(
            "Solver: domain 'pallas' keeps nothing of its iterations that gradient "
            "'unrolled' could follow; use gradient='implicit', or domain='kernel'."
        )
    start = solver.start_epsilon
    if start is not None and (solver.domain != "log" or start < solver.epsilon):
        raise ValueError(
            "Solver: start_epsilon must be at least epsilon, and the domain 'log'; got "
            f"{start}, {solver.epsilon} and {solver.domain!r}."
        )


def _pose(cost: Array, a: Array, b: Array, solver: Solver) -> tuple[Array, ...]:
    """What is solved for a pair of cost [N, M], with `rest` of one more row and column.

    Returns: cost, the first potential of its rows and both weights, positive, of total
    1; whether anything moves, and the total that the flow is multiplied by.
    """
    # A NaN is passed on.
    moves = ((a.sum() > 0) & (b.sum() > 0)) | jnp.isnan(a.sum() + b.sum())
    mass = jnp.where(moves, jnp.maximum(a.sum(), b.sum()), 1.0)
    # Where nothing moves any problem without trouble is solved instead.
    a = jnp.where(moves, a / mass, 1 / len(a))
    b = jnp.where(moves, b / mass, 1 / len(b))
    if solver.scale_cost != "none":
        size = cost.mean() if solver.scale_cost == "mean" else cost.max()
        cost = cost / jnp.maximum(size, 1e-6)
    # Constants on rows and columns change potentials, not the flow: with these every
    # row and column of the kernel has a 1 and none vanishes in float32.
    row = jax.lax.stop_gradient(cost.min(1))
    column = jax.lax.stop_gradient((cost - row[:, None]).min(0))
    rest = cost - row[:, None] - column
    start = row.min() - row  # the potential that is 0 for the costs as they came
    if solver.unequal == "partial":
        rest, start, a, b = _with_rest(rest, row, column, start, a, b)
    a, b = jnp.maximum(a, _TINY), jnp.maximum(b, _TINY)
    return rest, start, a, b, moves, mass


def _with_rest(
    cost: Array, row: Array, column: Array, start: Array, a: Array, b: Array
) -> tuple[Array, Array, Array, Array]:
    """One more patch on both sides, equally far from all, that takes what is left."""
    surplus = a.sum() - b.sum()
    cost = jnp.block(
        [
            [cost, (row.max() - row)[:, None]],
            [(column.max() - column)[None], jnp.zeros((1, 1))],
        ]
    )
    a = jnp.append(a, jnp.maximum(-surplus, 0.0))
    b = jnp.append(b, jnp.maximum(surplus, 0.0))
    return cost, jnp.append(start, 0.0), a, b


def _solve(cost: Array, start: Array, a: Array, b: Array, solver: Solver) -> Array:
    """The flows of all pairs: cost [P, N, M]."""
    problem = cost, start, a, b
    if solver.gradient == "implicit":
        problem = jax.lax.stop_gradient(problem)
    if solver.domain == "pallas":
        from kprpe_jax.matching.sinkhorn_kernel import scale_on_chip

        kernel, u = _to_kernel(*problem[:2], solver.epsilon)
        flow = scale_on_chip(kernel, u, *problem[2:], iterations=solver.iterations)
    else:
        pair = _kernel_domain if solver.domain == "kernel" else _log_domain
        # OTT's results are read inside of vmap: outside they mix the pairs.
        flow = jax.vmap(partial(pair, solver=solver))(*problem)
    if solver.gradient == "implicit":
        attach = partial(attach_gradient, epsilon=solver.epsilon)
        flow = jax.vmap(attach)(flow, cost, a, b)
    return flow


def _plan(
    flow: Array, a: Array, b: Array, moves: Array, mass: Array, sizes: tuple[int, int]
) -> Plan:
    """What of a pair's flow concerns its own patches, in the units of its weights."""
    error = jnp.abs(flow.sum(1) - a).sum() + jnp.abs(flow.sum(0) - b).sum()
    flow = flow[: sizes[0], : sizes[1]]
    return Plan(*(jnp.where(moves, mass * x, 0.0) for x in (flow, error)))


def _log_domain(cost: Array, start: Array, a: Array, b: Array, solver: Solver) -> Array:
    # OTT takes three seconds to import, which commands without a flow do not wait for.
    from ott.geometry.epsilon_scheduler import Epsilon
    from ott.geometry.geometry import Geometry
    from ott.problems.linear.linear_problem import LinearProblem
    from ott.solvers.linear.sinkhorn import Sinkhorn

    epsilon = solver.epsilon
    if solver.start_epsilon is not None:
        first = solver.start_epsilon / epsilon
        decay = first ** (-2 / solver.iterations)
        epsilon = Epsilon(epsilon, init=first, decay=decay)
    algorithm = Sinkhorn(
        lse_mode=True,
        threshold=0.0,
        min_iterations=solver.iterations,
        max_iterations=solver.iterations,
        inner_iterations=solver.iterations,
        implicit_diff=None,
    )
    problem = LinearProblem(Geometry(cost_matrix=cost, epsilon=epsilon), a=a, b=b)
    return algorithm(problem, init=(start, jnp.zeros_like(b))).matrix


def _kernel_domain(
    cost: Array, start: Array, a: Array, b: Array, solver: Solver
) -> Array:
    kernel, u = _to_kernel(cost, start, solver.epsilon)
    exact = jax.lax.Precision.HIGHEST

    def step(scalings: tuple[Array, Array], _: None) -> tuple[tuple, None]:
        u, _ = scalings
        v = b / jnp.maximum(jnp.matmul(u, kernel, precision=exact), LEAST_SUM)
        # Its scale cancels in u; where totals differ it would grow with every round.
        v = v / jax.lax.stop_gradient(v.max())
        sums = jnp.matmul(kernel, v, precision=exact)
        return (a / jnp.maximum(sums, LEAST_SUM), v), None

    (u, v), _ = jax.lax.scan(step, (u, b), length=solver.iterations)
    return u[:, None] * kernel * v


def _to_kernel(cost: Array, start: Array, epsilon: float) -> tuple[Array, Array]:
    """The kernel and the first scaling of its rows."""
    return jnp.exp(-cost / epsilon), jnp.maximum(jnp.exp(start / epsilon), LEAST_SUM)
