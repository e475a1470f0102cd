"""Odd numbers and forms of arrays: a result, or one sentence; NaN stays NaN.

As `test_readers`, a short profile every day, and a long one by `make fuzz`.
"""

import resource
import warnings

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tests.fuzz.numbers import ENTRIES
from tests.fuzz.test_readers import EXAMPLES

_MOST_MEMORY = 1 << 29  # bytes that a call may add to the peak
_SPECIAL = (0.0, -0.0, 1e-45, -1e-40, 1.2e-38, 1e-20, 1e-7, 1.0, -1.0, 0.5, 1e6)
_DTYPES = (
    "float16",
    "float64",
    "int8",
    "uint8",
    "int32",
    "bool",
    "complex64",
    "U3",
    "O",
)


EVERY = pytest.mark.parametrize(
    "entry",
    [
        pytest.param(x, marks=[pytest.mark.slow] * x.compiled, id=x.name)
        for x in ENTRIES
    ],
)


def profile(entry):
    examples = min(EXAMPLES, 8) if entry.compiled and EXAMPLES <= 25 else EXAMPLES
    # What is compiled takes a program for each form of arrays.
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=EXAMPLES <= 25,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def numbers(largest):
    """Finite float32, the odd ones among them more often."""
    most = float(np.float32(min(largest, 3.4e38)))
    special = [x for x in (*_SPECIAL, most, -most) if abs(x) <= most]
    return st.sampled_from(special) | st.floats(-most, most, width=32)


def inputs(entry):
    """Arrays of its shapes."""
    return st.tuples(
        *(arrays.arrays(np.float32, shape, elements=numbers(entry.largest))
          for shape in entry.shapes)
    )  # fmt: skip


def call(entry, values):
    """The results, as arrays, or the refusal; nothing else may be raised."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found, refusal = None, None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = entry(*values)
        except (ValueError, TypeError) as error:
            refusal = error
    if refusal is not None:
        assert 0 < len(str(refusal)) < 1500
        return refusal
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (after - before) * 1024 < _MOST_MEMORY
    return [np.asarray(x) for x in jax.tree.leaves(found)]


@EVERY
def test_finite_numbers_give_no_nan(entry):
    @profile(entry)
    @given(inputs(entry))
    def check(values):
        found = call(entry, values)
        if isinstance(found, list):
            assert not any(np.isnan(x).any() for x in found)

    check()


@EVERY
def test_nan_stays_nan_or_is_refused(entry):
    @profile(entry)
    @given(inputs(entry), st.data())
    def check(values, data):
        which = data.draw(st.integers(0, len(values) - 1))
        place = data.draw(st.integers(0, values[which].size - 1))
        values = [value.copy() for value in values]
        values[which].flat[place] = np.nan
        found = call(entry, values)
        assert isinstance(found, Exception) or any(np.isnan(x).any() for x in found)

    check()


@EVERY
def test_infinities_and_other_forms_are_answered_or_refused(entry):
    @profile(entry)
    @given(inputs(entry), st.data())
    def check(values, data):
        values = list(values)
        which = data.draw(st.integers(0, len(values) - 1))
        value = values[which]
        change = data.draw(st.sampled_from(["inf", "dtype", "shape"]))
        if change == "inf":
            value = value.copy()
            value.flat[data.draw(st.integers(0, value.size - 1))] = np.inf
        elif change == "dtype":
            with np.errstate(all="ignore"):
                value = value.astype(data.draw(st.sampled_from(_DTYPES)))
        else:
            value = data.draw(
                st.sampled_from([value[:0], value[..., :0], value[0], value[None]])
            )
        values[which] = value
        call(entry, values)

    check()


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int64", "bool"])
@pytest.mark.parametrize("name", ["roc", "folds", "best_accuracy", "open_set"])
def test_whole_scores_are_the_numbers_that_they_are(name, dtype, rng):
    (entry,) = (entry for entry in ENTRIES if entry.name == name)
    most = 2 if dtype == "bool" else 100
    scores = rng.integers(0, most, entry.shapes[0]).astype(dtype)
    got, want = (call(entry, [x]) for x in (scores, scores.astype(np.float64)))
    for ours, theirs in zip(got, want, strict=True):
        np.testing.assert_array_equal(ours, theirs)
