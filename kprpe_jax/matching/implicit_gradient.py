"""Gradient of an entropic flow by the conditions that it fulfils."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

_RIDGE = 1e-6  # keeps the system solvable where the flow falls apart into blocks


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def attach_gradient(
    flow: Array, cost: Array, a: Array, b: Array, epsilon: float
) -> Array:
    """The flow unchanged, with the gradient of the problem that it solves.

    It costs one small linear system whatever the number of iterations was, and nothing
    of them is kept. OTT's own is NaN where a weight is zero, and its linear solver
    stops the program where a flow falls apart into blocks (docs/decisions/005).

    Source: f_ij = exp((p_i + q_j - d_ij) / epsilon) with sums a and b, differentiated:
    Cuturi et al., Supervised quantile normalization for low-rank matrix factorization,
    2020.
    Args:
      flow: float32 [N, M], the solution; its own gradient is not followed.
      cost: [N, M], in the units of epsilon.
      a, b: [N] and [M], positive, of one total.
      epsilon: of the entropy.
    """
    return flow


def _forward(
    flow: Array, cost: Array, a: Array, b: Array, epsilon: float
) -> tuple[Array, Array]:
    return flow, flow


def _backward(epsilon: float, flow: Array, cotangent: Array) -> tuple[Array, ...]:
    n = len(flow)
    roots = jnp.sqrt(jnp.concatenate([flow.sum(1), flow.sum(0)]))
    link = flow / (roots[:n, None] * roots[n:])
    # Potentials are known up to one constant: the outer product fixes it.
    loose = jnp.concatenate([roots[:n], -roots[n:]])
    system = jnp.block([[jnp.eye(n), link], [link.T, jnp.eye(flow.shape[1])]])
    system += _RIDGE * jnp.eye(len(roots)) + loose[:, None] * loose
    pull = flow * cotangent
    sums = jnp.concatenate([pull.sum(1), pull.sum(0)])
    factor = jax.scipy.linalg.cho_factor(system, lower=True)
    weights = jax.scipy.linalg.cho_solve(factor, sums / roots) / roots
    d_cost = (flow * (weights[:n, None] + weights[n:]) - pull) / epsilon
    return jnp.zeros_like(flow), d_cost, weights[:n], weights[n:]


attach_gradient.defvjp(_forward, _backward)
