import numpy as np
import pytest

from kprpe_jax.losses.class_sampling import num_slots, sample_classes


@pytest.mark.parametrize("keep", [4, 9, 20])
def test_positives_first_then_the_largest_noise(rng, keep):
    noise = rng.random(30).astype(np.float32)
    labels = np.array([7, -1, 3, 7, 30, 29, -40, 55])
    got = sample_classes(noise, labels, keep, 20)
    positives = {3, 7, 29}
    others = [row for row in np.argsort(-noise) if row not in positives]
    want = sorted([*positives, *others[: keep - 3]])
    np.testing.assert_array_equal(got.rows[got.kept], want)
    assert len(np.unique(got.rows)) == 20
    assert got.overflow == 0


def test_overflow_keeps_every_positive_and_nothing_else(rng):
    labels = rng.permutation(30)[:12]
    got = sample_classes(rng.random(30).astype(np.float32), labels, 5, 15)
    np.testing.assert_array_equal(got.rows[got.kept], np.sort(labels))
    assert got.overflow == 7


def test_slots_suffice_for_the_sample_and_for_any_batch():
    assert num_slots(1000, 0.6, 64) == 600
    assert num_slots(1000, 0.01, 64) == 64
    assert num_slots(32, 0.1, 64) == 32


def test_rows_marked_last_are_taken_last(rng):
    noise = np.where(np.arange(10) < 6, rng.random(10), -1).astype(np.float32)
    got = sample_classes(noise, np.array([2]), 6, 8)
    np.testing.assert_array_equal(got.rows[got.kept], np.arange(6))
