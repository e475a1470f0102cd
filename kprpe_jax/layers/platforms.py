"""The platform that kernels are traced for."""

import contextlib
import contextvars
from collections.abc import Iterator

import jax

PLATFORMS = ("cpu", "gpu", "tpu")
NO_KERNELS = "none"  # of `kernels_for`: attention as XLA computes it
_described: contextvars.ContextVar[str] = contextvars.ContextVar("_described")


def kernel_platform() -> str:
    """The platform that JAX computes on by default, or that of `kernels_for`."""
    return _described.get("") or jax.default_backend()


@contextlib.contextmanager
def kernels_for(platform: str) -> Iterator[None]:
    """Trace kernels for a platform that need not be there: of PLATFORMS, NO_KERNELS."""
    token = _described.set(platform)
    try:
        yield
    finally:
        _described.reset(token)
