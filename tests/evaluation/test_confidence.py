import jax
import numpy as np
import pytest

from kprpe_jax.evaluation.confidence import bootstrap_interval
from kprpe_jax.evaluation.roc import roc_curve, tar_at_far


def test_interval_of_a_mean_is_that_of_the_normal_law(rng):
    x = rng.normal(size=400)
    got = bootstrap_interval(np.mean, x, rng=jax.random.key(0), resamples=2000)
    half = 1.96 * x.std() / 20
    assert got.value == x.mean()
    np.testing.assert_allclose([got.low, got.high], x.mean() + [-half, half], atol=0.01)


def test_the_key_decides(rng):
    x = rng.normal(size=50)
    draw = lambda seed: bootstrap_interval(np.mean, x, rng=jax.random.key(seed))  # noqa: E731
    assert draw(1) == draw(1) != draw(2)


def test_strata_keep_their_sizes():
    """Without them a resample of two genuine pairs would often lack one."""
    scores, same = np.arange(12.0), np.arange(12) >= 10
    got = bootstrap_interval(
        lambda scores, same: tar_at_far(roc_curve(scores, same), [0.1]).tar[0],
        scores,
        same,
        rng=jax.random.key(0),
        strata=same,
        resamples=50,
    )
    assert got == (1, 1, 1)


def test_arrays_stay_together(rng):
    x = rng.normal(size=30)
    got = bootstrap_interval(
        lambda x, y: np.abs(x + y).max(), x, -x, rng=jax.random.key(0), resamples=20
    )
    assert got == (0, 0, 0)


def test_several_metrics_are_drawn_together(rng):
    x = rng.normal(size=30)
    options = dict(rng=jax.random.key(3), resamples=40)
    both = bootstrap_interval(lambda x: np.array([x.mean(), x.max()]), x, **options)
    one = bootstrap_interval(np.max, x, **options)
    assert [part[1] for part in both] == list(one)
    assert both.low[0] < both.value[0] < both.high[0]


def test_level_widens():
    x = np.arange(100.0)
    wide, narrow = (
        bootstrap_interval(np.mean, x, rng=jax.random.key(0), level=level)
        for level in (0.99, 0.5)
    )
    assert wide.low < narrow.low < narrow.high < wide.high


def test_errors():
    key = jax.random.key(0)
    with pytest.raises(ValueError, match=r"one length, at least 1; got \[2, 3, 2\]"):
        bootstrap_interval(np.mean, np.ones(2), np.ones(3), rng=key)
    with pytest.raises(ValueError, match=r"at least 1; got \[0, 0\]"):
        bootstrap_interval(np.mean, np.ones(0), rng=key)
    for length in (1, 3):
        with pytest.raises(ValueError, match=rf"strata .* got \[2, {length}\]"):
            bootstrap_interval(np.mean, np.ones(2), rng=key, strata=np.ones(length))
    with pytest.raises(ValueError, match="level must lie in .* got 95 and 1000"):
        bootstrap_interval(np.mean, np.ones(2), rng=key, level=95)
