"""Identity-balanced and repeated orders of rows."""

import collections
import pickle

import numpy as np
import pytest

from kprpe_jax.data import order

LABELS = np.array([2, 0, 2, -1, 5, 0, 2, 5, 2, 2, 0, 0])  # 4, 5 and 2 rows; one without


def first(rows, count):
    return [rows[place] for place in range(count)]


def test_balanced_batches_have_k_different_rows_of_each_identity():
    rows = first(order.balanced(LABELS, images_per_identity=3, seed=0), 3 * 60)
    epochs = set()
    for epoch in np.reshape(rows, (20, 3, 3)):
        people = LABELS[epoch]
        assert (people == people[:, :1]).all()
        assert sorted(people[:, 0]) == [0, 2, 5]  # each identity once an epoch
        epochs.add(tuple(people[:, 0]))
        for chosen, person in zip(epoch, people[:, 0], strict=True):
            assert len(set(chosen)) == 3 or person == 5  # 5 has two rows only
    assert len(epochs) == 6  # all orders come up
    # Every row is sampled: of identity 0 each with 3 / 4, of 5 each 1.5 times an epoch.
    count = collections.Counter(rows)
    assert set(count) == set(np.flatnonzero(LABELS >= 0))
    assert min(count[row] for row in (1, 5, 10, 11)) >= 8  # expected: 15


def test_balanced_depends_on_the_seed_and_survives_pickling():
    a, same, other = (
        order.balanced(LABELS, images_per_identity=2, seed=seed) for seed in (3, 3, 4)
    )
    assert first(a, 60) == first(same, 60) != first(other, 60)
    source = order._Balanced(LABELS, 2, 3)
    assert first(pickle.loads(pickle.dumps(source)), 60) == first(a, 60)


def test_repeated_copies_the_first_of_a_pair_at_the_given_rate():
    rows = order.shuffled(10_000, seed=1)
    plain = np.array(first(rows, 4000)).reshape(-1, 2)
    some = np.array(first(order.repeated(rows, probability=0.3, seed=5), 4000))
    some = some.reshape(-1, 2)
    copied = some[:, 1] == some[:, 0]
    np.testing.assert_array_equal(some[:, 0], plain[:, 0])
    np.testing.assert_array_equal(some[~copied], plain[~copied])
    assert abs(copied.mean() - 0.3) < 5 * np.sqrt(0.3 * 0.7 / 2000)


@pytest.mark.parametrize(("probability", "pair"), [(0.0, [0, 1]), (1.0, [0, 0])])
def test_repeated_never_or_always(probability, pair):
    rows = order.shuffled(50, seed=1)
    places = [2 * m + k for m in range(30) for k in pair]
    expected = [rows[place] for place in places]
    repeated = order.repeated(rows, probability=probability, seed=5)
    assert first(repeated, 60) == expected


def test_what_cannot_be_ordered_is_refused():
    with pytest.raises(ValueError, match="got 1 and 0 of 3 rows"):
        order.balanced(np.full(3, -1), images_per_identity=1, seed=0)
    with pytest.raises(ValueError, match="got 0 and 3 of 3 rows"):
        order.balanced(np.arange(3), images_per_identity=0, seed=0)
    with pytest.raises(ValueError, match=r"must lie in 0\.\.1; got 1.5"):
        order.repeated(order.shuffled(3, seed=0), probability=1.5, seed=0)
