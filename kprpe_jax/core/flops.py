"""FLOPs of the matrix products that a function asks for, whatever is made of it."""

import math
from collections.abc import Callable
from typing import Any

from jax.extend import core


def traced_flops(
    jaxpr: core.Jaxpr | core.ClosedJaxpr,
    *,
    pallas: bool = True,
    counts: Callable[[str], bool] = lambda scope: True,
) -> float:
    """FLOPs of one run, two for a multiplication and an addition.

    Products and convolutions count, elementwise work does not. Loops count as often as
    they run, where that is known when traced, and once else; of branches the costliest.

    Args:
      jaxpr: `jax.jit(f).trace(...).jaxpr`; of an array that several devices share, all.
      pallas: count what kernels multiply, too.
      counts: scope of an equation (`jax.named_scope`, transformations) -> whether it
        counts, with all that is in it.
    """
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    return sum(
        _flops(equation, pallas, counts)
        for equation in jaxpr.eqns
        if counts(str(equation.source_info.name_stack))
    )


def model_flops(jaxpr: core.Jaxpr | core.ClosedJaxpr) -> float:
    """FLOPs of a training step's network, loss and gradients, as `traced_flops`.

    Augmentation does not count, nor what rematerialization computes a second time, nor
    tables that are read by products (`position.lookup`).
    """

    def is_model(scope: str) -> bool:
        again = "rematted_computation" in scope and "transpose" not in scope
        return not (again or "augmentation" in scope or "lookup" in scope)

    return traced_flops(jaxpr, counts=is_model)


def _flops(equation: Any, pallas: bool, counts: Callable[[str], bool]) -> float:
    name, options = equation.primitive.name, equation.params
    shapes = [getattr(v.aval, "shape", ()) for v in equation.invars]
    out = equation.outvars[0].aval.shape if equation.outvars else ()
    if name == "dot_general":
        summed = (shapes[0][d] for d in options["dimension_numbers"][0][0])
        return 2.0 * math.prod(out) * math.prod(summed)
    if name == "conv_general_dilated":
        outputs = shapes[1][options["dimension_numbers"].rhs_spec[0]]
        return 2.0 * math.prod(out) * math.prod(shapes[1]) / outputs
    if name == "pallas_call" and not pallas:
        return 0.0
    times = {
        "scan": lambda: options["length"],
        "shard_map": lambda: options["mesh"].size,
        "pallas_call": lambda: math.prod(options["grid_mapping"].grid),
    }.get(name, lambda: 1)()
    inner = [
        traced_flops(part, pallas=pallas, counts=counts)
        for value in options.values()
        for part in (value if isinstance(value, tuple | list) else (value,))
        if hasattr(part, "eqns") or hasattr(part, "jaxpr")
    ]
    return times * (max(inner) if name == "cond" else sum(inner)) if inner else 0.0
