"""FLOPs of the matrix products that a function asks for, whatever is made of it."""

import math
from typing import Any

from jax.extend import core


def traced_flops(jaxpr: core.Jaxpr | core.ClosedJaxpr, *, pallas: bool = True) -> float:
    """FLOPs of one run, two for a multiplication and an addition.

    Products and convolutions count, elementwise work does not. Loops count as often as
    they run, where that is known when traced, and once else; of branches the costliest.

    Args:
      jaxpr: `jax.jit(f).trace(...).jaxpr`; of an array that several devices share, all.
      pallas: count what kernels multiply, too.
    """
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    return sum(_flops(equation, pallas) for equation in jaxpr.eqns)


def _flops(equation: Any, pallas: bool) -> float:
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
        traced_flops(part, pallas=pallas)
        for value in options.values()
        for part in (value if isinstance(value, tuple | list) else (value,))
        if hasattr(part, "eqns") or hasattr(part, "jaxpr")
    ]
    return times * (max(inner) if name == "cond" else sum(inner)) if inner else 0.0
