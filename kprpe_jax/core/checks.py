"""Checks of arrays, with messages that name the row."""

import numpy as np
from jax.typing import ArrayLike


def finite(name: str, values: ArrayLike, *, start: int = 0) -> np.ndarray:
    """Return the values on the host.

    Args:
      name: of the caller, for the message.
      values: [N, ...].
      start: number of the first row, where the values are a part of more.
    Raises: ValueError: some of them are NaN or infinite.
    """
    values = np.asarray(values)
    rows = np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
    bad = np.flatnonzero(~rows)
    if bad.size:
        raise ValueError(
            f"{name}: values must be finite; got {bad.size} of {len(values)} rows with "
            f"NaN or infinity, the first is row {start + bad[0]}; find out which image "
            "made it."
        )
    return values
