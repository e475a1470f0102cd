"""Bootstrap confidence intervals."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jax import Array
from jax.typing import ArrayLike


class Interval(NamedTuple):
    """A metric, or several in an array, and where it lies.

    Attributes:
      value: on the data as they are.
      low, high: percentiles over the resamples, each metric by itself.
    """

    value: float | np.ndarray
    low: float | np.ndarray
    high: float | np.ndarray


def bootstrap_interval(
    metric: Callable[..., float | np.ndarray],
    *arrays: ArrayLike,
    rng: Array,
    strata: ArrayLike | None = None,
    resamples: int = 1000,
    level: float = 0.95,
) -> Interval:
    """Percentile interval of a metric under resampling of rows with replacement.

    Rows count as independent. Pairs that share people are not quite, so the interval
    is somewhat too narrow for them.

    Args:
      metric: of the arrays, a number or an array of numbers; called 1 + `resamples`
        times on the host.
      arrays: [P, ...] each, resampled together.
      rng: key; the same one gives the same interval.
      strata: [P]; each of its values keeps its number of rows. Give `same` for rates of
        pairs, so that no resample lacks a kind.
      resamples: number of draws.
      level: share of the resamples inside, in (0, 1).
    Raises: ValueError: arrays of different lengths or empty, level outside (0, 1),
      fewer than 2 resamples.
    """
    arrays = tuple(map(np.asarray, arrays))
    strata = np.zeros(len(arrays[0]), int) if strata is None else np.asarray(strata)
    lengths = [len(array) for array in (*arrays, strata)]
    if len(set(lengths)) != 1 or 0 in lengths:
        raise ValueError(
            "bootstrap_interval: arrays and strata must have one length, at least 1; "
            f"got {lengths}."
        )
    if not 0 < level < 1 or resamples < 2:
        raise ValueError(
            "bootstrap_interval: level must lie in (0, 1) and resamples be at least 2; "
            f"got {level} and {resamples}."
        )
    groups = [np.flatnonzero(strata == value) for value in np.unique(strata)]
    # NumPy draws, since the indices are used on the host; the key seeds it.
    generator = np.random.default_rng(np.asarray(jax.random.key_data(rng)))
    values = []
    for _ in range(resamples):
        rows = np.concatenate([generator.choice(group, len(group)) for group in groups])
        values.append(metric(*(array[rows] for array in arrays)))
    tail = 50 * (1 - level)
    low, high = np.percentile(values, [tail, 100 - tail], axis=0)
    return Interval(metric(*arrays), low, high)
