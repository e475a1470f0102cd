"""`jax.jit` for tests: compile quickly, the arrays are tiny and most run once."""

from collections.abc import Callable
from typing import Any

import jax

OPTIONS = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}


def quick_jit(function: Callable, **options: Any) -> Callable:
    """`jax.jit` without the compiler's costly optimizations."""
    return jax.jit(function, compiler_options=OPTIONS, **options)
