import numpy as np
import pytest

from kprpe_jax.data.pairs import PairRows, paired
from kprpe_jax.data.rows import Rows

# Person 0 has one image, 1 has two, 2 has three, 3 has two; the last row is unlabeled.
LABELS = np.array([2, 0, 1, 2, 3, 1, 2, 3, -1])


def sampled(seed, count=1200):
    stream = paired(LABELS, seed=seed)
    numbers = np.array([stream[i] for i in range(count)])
    return np.stack(np.divmod(numbers, len(LABELS)), 1)


def test_half_are_genuine_and_everybody_takes_part():
    pairs = sampled(0)
    people = LABELS[pairs]
    same = people[:, 0] == people[:, 1]
    np.testing.assert_array_equal(same, np.tile([True, False], 600))
    assert (pairs[:, 0] != pairs[:, 1]).all()
    assert (people >= 0).all()
    # Genuine pairs: each person with two images once per epoch of three.
    for epoch in people[::2, 0].reshape(-1, 3):
        assert sorted(epoch) == [1, 2, 3]
    # Impostor pairs: everybody is first once per epoch of four, and second alike.
    for epoch in people[1::2, 0].reshape(-1, 4):
        assert sorted(epoch) == [0, 1, 2, 3]
    counts = np.bincount(people[1::2, 1])
    assert counts.min() > 100
    # Of three images each pair comes, in both orders.
    assert len({tuple(p) for p in pairs[::2] if LABELS[p[0]] == 2}) == 6


def test_a_place_depends_on_seed_and_place_alone():
    again = paired(LABELS, seed=0)
    pairs = sampled(0, 50)
    for place in (49, 3, 17):
        assert again[place] == pairs[place] @ [len(LABELS), 1]
    assert (sampled(1, 50) != pairs).any()


@pytest.mark.parametrize(
    ("labels", "got"),
    [
        ([4, 4, 4], "got 1 people, 1 with two images"),
        ([0, 1, 2], "got 3 people, 0 with two images"),
        ([-1, -1], "got 0 people, 0 with two images"),
    ],
)
def test_pairs_that_cannot_be_sampled(labels, got):
    with pytest.raises(ValueError, match=f"two people and one with two images; {got}"):
        paired(np.array(labels), seed=0)


def test_rows_of_two_images():
    rows = Rows({"label": LABELS, "x": np.arange(9.0), "id": np.arange(9) + 100})
    both = PairRows(rows)
    assert len(both) == 4
    pair = both[7 * 9 + 2]
    assert pair["label"].tolist() == [3, 1]
    assert pair["x"].tolist() == [7, 2]
    assert (pair["id"], pair["second_id"]) == (107, 102)
    listed = PairRows(rows, np.array([10, 7 * 9 + 2]))
    assert len(listed) == 2
    assert [row["x"].tolist() for row in listed.__getitems__([1, 0])] == [
        [7, 2],
        [1, 1],
    ]
