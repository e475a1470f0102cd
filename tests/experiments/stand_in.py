"""A recognizer by a plain function."""

from collections.abc import Callable
from typing import Any, NamedTuple

from kprpe_jax.core.features import Features


class StandIn(NamedTuple):
    """The part of `Recognizer` that re-ranking reads."""

    fingerprint: str
    features: Callable[..., Features] | None
    grid: tuple[int, int] = (1, 1)
    module: Any = None
