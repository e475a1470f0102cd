"""Checks of arrays, with messages that name the row, and of options."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from jax.typing import ArrayLike


def finite(name: str, values: ArrayLike, *, start: int = 0) -> np.ndarray:
    """Return the values on the host; whole numbers and booleans as float64.

    Args:
      name: of the caller, for the message.
      values: [N, ...].
      start: number of the first row, where the values are a part of more.
    Raises: ValueError: some of them are NaN or infinite, or no real numbers.
    """
    values = np.asarray(values)
    if values.dtype.kind in "biu":  # of which -x may be another number
        values = values.astype(np.float64)
    if values.dtype.kind in "cmMOSU" or not values.ndim:
        raise ValueError(
            f"{name}: values must be real numbers, a row or more; got {values.dtype} "
            f"{list(values.shape)}; convert them."
        )
    rows = np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
    bad = np.flatnonzero(~rows)
    if bad.size:
        raise ValueError(
            f"{name}: values must be finite; got {bad.size} of {len(values)} rows with "
            f"NaN or infinity, the first is row {start + bad[0]}; find out which image "
            "made it."
        )
    return values


def check_option(where: str, name: str, value: Any, known: Iterable[str]) -> None:
    """Check an option of a function or a class.

    Args:
      where: the function or class, for the message.
      name: of the option.
      value: of the option.
      known: the values that there are.
    Raises: ValueError: another value.
    """
    if value not in (known := tuple(known)):
        raise ValueError(
            f"{where}: unknown {name} {value!r}; use one of {', '.join(known)}."
        )


def check_field(field: str, value: Any, known: Iterable[str]) -> None:
    """Check a field of a config; arguments as `check_option`.

    Raises: ValueError: another value.
    """
    if value not in (known := tuple(known)):
        raise ValueError(f"{field} must be one of {', '.join(known)}; got {value!r}.")
