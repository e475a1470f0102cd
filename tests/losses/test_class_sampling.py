"""Samples of classes: what is in them, how likely, and where their rows go."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.losses.class_sampling import (
    Shuffle,
    keyed_shuffle,
    num_slots,
    put_rows,
    sample_classes,
    sample_rows,
    take_rows,
)
from tests.meshes import mesh_of
from tests.quick import quick_jit


def drawn(order, labels, **options):
    """`sample_rows` by a written shuffle."""
    return quick_jit(lambda labels: sample_rows(written(order), labels, **options))(
        labels
    )


def written(order):
    """A shuffle as a list of rows."""
    order = np.asarray(order, np.int32)
    row_at, place_of = jnp.asarray(order), jnp.asarray(np.argsort(order))
    return Shuffle(lambda places: row_at[places], lambda rows: place_of[rows])


@pytest.mark.parametrize("keep", [4, 9, 20])
def test_positives_first_then_the_first_of_the_shuffle(rng, keep):
    order = rng.permutation(30)
    labels = np.array([7, -1, 3, 7, 30, 29, -40, 55])
    got = drawn(order, labels, count=30, keep=keep, slots=20)
    positives = {3, 7, 29}
    others = [row for row in order if row not in positives]
    want = sorted([*positives, *others[: keep - 3]])
    np.testing.assert_array_equal(np.sort(got.rows[got.kept]), want)
    assert len(np.unique(got.rows)) == 20
    assert got.overflow == 0


def test_overflow_keeps_every_positive_and_nothing_else(rng):
    labels = rng.permutation(30)[:12]
    got = drawn(rng.permutation(30), labels, count=30, keep=5, slots=15)
    np.testing.assert_array_equal(np.sort(got.rows[got.kept]), np.sort(labels))
    assert got.overflow == 7


def test_rows_that_are_no_classes_only_fill(rng):
    got = drawn(rng.permutation(6), np.array([2, 7]), count=6, keep=6, slots=8)
    np.testing.assert_array_equal(np.sort(got.rows[got.kept]), np.arange(6))
    assert set(np.asarray(got.rows)) == set(range(8))
    none = drawn([0], np.array([2]), count=0, keep=0, slots=3)
    assert not none.kept.any()
    assert sorted(np.asarray(none.rows)) == [0, 1, 2]


def test_slots_suffice_for_the_sample_and_for_any_batch():
    assert num_slots(1000, 0.6, 64) == 600
    assert num_slots(1000, 0.01, 64) == 64
    assert num_slots(32, 0.1, 64) == 32


@pytest.mark.parametrize("count", [1, 2, 37, 1000])
def test_a_keyed_shuffle_is_a_permutation(count):
    @quick_jit
    def both(rng, count, places):
        shuffle = keyed_shuffle(rng, count)
        rows = shuffle.row_at(places)
        return rows, shuffle.place_of(rows)

    places = np.arange(count, dtype=np.int32)
    rows, back = both(jax.random.key(count), count, places)
    np.testing.assert_array_equal(np.sort(rows), places)
    np.testing.assert_array_equal(back, places)
    if count > 30:
        again, _ = both(jax.random.key(1), count, places)
        assert (np.asarray(again) == np.asarray(rows)).mean() < 0.15


def test_every_row_and_every_pair_is_as_likely_as_the_others():
    """Over many keys, in a sample of 10 of 23: by their variances under true chance."""
    count, size, draws = 23, 10, 4000

    @partial(jax.jit, static_argnums=1)
    def draw(rng, draws):
        keys = jax.random.split(rng, draws)
        places = jnp.arange(size)
        return jax.vmap(lambda k: keyed_shuffle(k, count).row_at(places))(keys)

    rows = np.asarray(draw(jax.random.key(0), draws))
    member = np.zeros((draws, count))
    member[np.arange(draws)[:, None], rows] = 1
    together = member.T @ member
    one = size / count
    two = one * (size - 1) / (count - 1)
    spread = lambda p: np.sqrt(draws * p * (1 - p))  # noqa: E731
    assert np.abs(np.diag(together) - draws * one).max() < 4.5 * spread(one)
    pairs = together[np.triu_indices(count, 1)]
    assert np.abs(pairs - draws * two).max() < 4.5 * spread(two)
    # As much as independent draws would: neither clumped nor evened out.
    assert 0.7 < np.std(pairs) / spread(two) < 1.3
    first = np.bincount(rows[:, 0], minlength=count)
    assert np.abs(first - draws / count).max() < 4.5 * spread(1 / count)


@pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 devices")
@pytest.mark.parametrize("shape", [(1, 1, 4), (2, 1, 4)])
def test_every_shard_samples_its_own(rng, shape):
    """The same sample whatever the other axes; rows are read and written in place."""
    mesh, rows, num_classes = mesh_of(*shape), 256, 170
    labels = np.array([0, 5, 5, 63, 64, -1, 169, 170], np.int32)

    @quick_jit
    def run(rng, labels, table):
        sample = sample_classes(
            rng, labels, rows=rows, num_classes=num_classes, sample_rate=0.25, mesh=mesh
        )
        taken = take_rows(table, sample.rows, mesh)
        return sample, taken, put_rows(table, sample, taken + 1000, mesh)

    table = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)
    sample, taken, written_back = run(jax.random.key(3), labels, table)
    assert sample.overflow == 0
    within, classes = (np.asarray(x).reshape(4, 16) for x in sample[:2])
    for shard, have in enumerate((64, 64, 42, 0)):
        kept = classes[shard] >= 0
        assert kept.sum() == have // 4
        mine = classes[shard][kept]
        np.testing.assert_array_equal(mine, within[shard][kept] + 64 * shard)
        assert {c for c in (0, 5, 63, 64, 169) if c // 64 == shard} <= set(mine)
        assert len(set(within[shard])) == 16
    assert (within[0] != within[1]).any()
    numbers = (within + 64 * np.arange(4)[:, None]).ravel()
    np.testing.assert_array_equal(taken, table[numbers])
    want = table.copy()
    want[numbers[classes.ravel() >= 0]] += 1000  # not what only fills a slot
    np.testing.assert_array_equal(written_back, want)
    if shape[0] == 2:
        one = quick_jit(
            lambda rng: sample_classes(
                rng, labels, rows=rows, num_classes=num_classes, sample_rate=0.25,
                mesh=mesh_of(1, 1, 4),
            )
        )(jax.random.key(3))  # fmt: skip
        np.testing.assert_array_equal(one.classes, sample.classes)


@pytest.mark.parametrize("rate", [0.0, 1.5])
def test_rates_out_of_range(rate):
    with pytest.raises(ValueError, match=r"must lie in \(0, 1\]; got"):
        sample_classes(
            jax.random.key(0), np.zeros(4, np.int32), rows=256, num_classes=9,
            sample_rate=rate, mesh=mesh_of(1, 1, 1),
        )  # fmt: skip
