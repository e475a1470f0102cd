import numpy as np
import pytest

from kprpe_jax.evaluation.pairs import sample_pairs

LABELS = np.array([3, 7, 3, 9, 7, 3, 5])  # 5 and 9 have one image


def test_pairs_are_what_they_say_and_cover_everything():
    first, second, same, num_folds = sample_pairs(LABELS, count=600, seed=0)
    assert num_folds == 10
    np.testing.assert_array_equal(same, np.tile([True, False], 300))
    np.testing.assert_array_equal(LABELS[first] == LABELS[second], same)
    assert (first != second).all()
    genuine = {frozenset(p) for p in zip(first[same], second[same], strict=True)}
    assert genuine == {frozenset(p) for p in ((0, 2), (0, 5), (2, 5), (1, 4))}
    # Identities alike, whatever their number of images: 7 in half of the genuine pairs.
    assert abs((LABELS[first[same]] == 7).mean() - 0.5) < 0.15
    impostor = {tuple(p) for p in zip(first[~same], second[~same], strict=True)}
    assert len(impostor) > 25  # of 34


def test_strangers_are_not_one_person():
    """TinyFace's distractors, all of them label -1."""
    labels = np.concatenate([LABELS, np.full(20, -1)])
    pairs, known = (sample_pairs(x, count=200, seed=0) for x in (labels, LABELS))
    np.testing.assert_array_equal(pairs.first, known.first)
    np.testing.assert_array_equal(pairs.second, known.second)
    with pytest.raises(ValueError, match="got 1 identities, 1 with two images"):
        sample_pairs(np.array([-1, -1, 4, 4]), count=2, seed=0)


def test_the_seed_alone_decides():
    a, b, c = (sample_pairs(LABELS, count=50, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(a.first, b.first)
    assert (a.first != c.first).any()


@pytest.mark.parametrize(
    ("labels", "count", "message"),
    [
        ([1, 1, 1], 4, "got 1 identities, 1 with two images, and 4"),
        ([1, 2, 3], 4, "got 3 identities, 0 with two images, and 4"),
        ([1, 1, 2], 3, "got 2 identities, 1 with two images, and 3"),
    ],
)
def test_what_gives_no_pairs_is_refused(labels, count, message):
    with pytest.raises(ValueError, match=message):
        sample_pairs(np.array(labels), count=count, seed=0)
