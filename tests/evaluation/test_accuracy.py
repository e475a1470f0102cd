import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.core import mesh as mesh_lib
from kprpe_jax.evaluation.evaluators.accuracy import DigitData, _key, build

CLASSES, SIDE = 4, 6
STATE = types.SimpleNamespace(params={"shift": jnp.float32(1)}, collections={})


class Rows:
    """Images with one bright pixel; their labels are right for about half of them."""

    def __init__(self, size=37):
        rng = np.random.default_rng(1)
        self.images = np.zeros((size, SIDE, SIDE, 1), np.uint8)
        self.places = rng.integers(0, SIDE, (size, 2))
        self.images[np.arange(size), *self.places.T] = 255
        right = (self.places.sum(1) + 1) % CLASSES
        self.labels = np.where(rng.random(size) < 0.5, right, 0).astype(np.int32)

    def __len__(self):
        return len(self.images)

    def __getitems__(self, rows):
        return [
            {
                "image": self.images[row],
                "label": self.labels[row],
                "keypoints": np.full((5, 2), 0.5, np.float32),
                "id": np.int32(row),
            }
            for row in rows
        ]


def plain(batch, rng, severity, alpha, *, condition):
    """Show the images as they are."""
    return batch["image"] / 255.0, batch["keypoints"]


def predict(params, collections, images, keypoints):
    """Class = (row + column of the bright pixel + shift) modulo the classes."""
    del collections, keypoints
    place = images[..., 0].reshape(len(images), -1).argmax(-1)
    answer = (place // SIDE + place % SIDE + params["shift"].astype(int)) % CLASSES
    return jax.nn.one_hot(answer, CLASSES)


def mesh_of(devices):
    sizes = {"data": -1, "fsdp": 2 if devices == 8 else 1, "class": 1}
    return mesh_lib.make_mesh(sizes, jax.devices()[:devices])


def correct_rows(rows):
    """Count in a loop over pixels."""
    correct = 0
    for image, label in zip(rows.images, rows.labels, strict=True):
        for row in range(SIDE):
            for column in range(SIDE):
                if image[row, column, 0] == 255:
                    correct += (row + column + 1) % CLASSES == label
    return correct


def make_evaluator(predict, distort, rows, *, batch_size, **fields):
    """One evaluator of these fields."""
    data = DigitData(predict, distort, rows, batch_size=batch_size, uses_keypoints=True)
    return build(data, **fields)


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("batch_size", [8, 16, 40, 64])
def test_equals_a_loop_over_rows_whatever_the_batch_and_the_mesh(devices, batch_size):
    rows = Rows()
    evaluate = make_evaluator(predict, plain, rows, batch_size=batch_size)
    results = evaluate(STATE, mesh_of(devices))
    assert results == {"accuracy": pytest.approx(correct_rows(rows) / 37), "count": 37}
    assert 0.3 < results["accuracy"] < 0.9


@pytest.mark.parametrize("answer", [0, 1])
def test_padding_never_counts(answer):
    """Padding repeats row 0: it must count neither as right nor as wrong."""
    rows = Rows(5)
    rows.labels[:] = 3
    rows.labels[0] = 2
    shown = jnp.eye(4)[2 if answer else 3]

    def constant(params, collections, images, keypoints):
        return jnp.tile(shown, (len(images), 1))

    evaluate = make_evaluator(constant, plain, rows, batch_size=8, repeats=3)
    expected = 1 / 5 if answer else 4 / 5
    assert evaluate(STATE, mesh_of(8)) == {
        "accuracy": pytest.approx(expected),
        "count": 5,
    }


def noisy(batch, rng, severity, alpha, *, condition):
    """Move the bright pixel of each row to a random place."""
    place = jax.random.randint(rng, (len(batch["label"]),), 0, SIDE**2)
    images = jax.nn.one_hot(place, SIDE**2).reshape(-1, SIDE, SIDE, 1)
    return images, batch["keypoints"]


def test_repeats_draw_anew_and_are_averaged():
    rows = Rows()

    @jax.jit
    def drawn(key):
        return jax.random.randint(key, (16,), 0, SIDE**2)

    correct = [0, 0, 0]
    for repeat in range(3):
        for index in range(3):
            labels = rows.labels[index * 16 : index * 16 + 16]
            places = drawn(_key(repeat, index)).tolist()
            for place, label in zip(places, labels, strict=False):
                right = (place // SIDE + place % SIDE + 1) % CLASSES == label
                correct[repeat] += right
    assert len(set(correct)) > 1  # every repeat draws anew
    evaluate = make_evaluator(predict, noisy, rows, batch_size=16, repeats=3)
    mesh = mesh_of(1)
    results = evaluate(STATE, mesh)
    assert results == {"accuracy": pytest.approx(sum(correct) / (3 * 37)), "count": 37}
    assert evaluate(STATE, mesh) == results


def test_a_draw_does_not_depend_on_the_mesh():
    evaluate = make_evaluator(predict, noisy, Rows(), batch_size=16, repeats=2)
    assert evaluate(STATE, mesh_of(1)) == evaluate(STATE, mesh_of(8))


def test_a_sweep_compiles_once():
    """Severity and keypoint error are arguments, not constants, of the program."""
    traced = []

    def watched(batch, rng, severity, alpha, *, condition):
        traced.append(condition)
        # The condition's numbers reach the program: above 0.5 all answers are wrong.
        wrong = jnp.where(severity + alpha > 0.5, 1, 0)
        images = jnp.roll(batch["image"] / 255.0, wrong, axis=1)
        return images, batch["keypoints"]

    rows = Rows()
    rows.labels = ((rows.places.sum(1) + 1) % CLASSES).astype(np.int32)
    data = DigitData(predict, watched, rows, batch_size=8, uses_keypoints=True)
    evaluate = build(data, severities=(0.0, 0.25, 0.5, 1.0, 1.5))
    results = evaluate(STATE, mesh_of(8))
    assert len(traced) == 1
    noise = build(data, alphas=(0.0, 1.0))(STATE, mesh_of(8))
    assert len(traced) == 2  # the other kind of noise
    results |= {"alpha": noise["uniform_1"]}
    assert {(c.severity, c.alpha) for c in traced} == {(0, 0)}
    assert [results[name] for name in ("0", "0.25", "0.5")] == [1, 1, 1]
    # A row further down, or from the last to the first: never the same class.
    assert [results[name] for name in ("1", "1.5", "alpha")] == [0, 0, 0]
    other = types.SimpleNamespace(params={"shift": jnp.float32(2)}, collections={})
    assert evaluate(other, mesh_of(8))["0"] == 0  # another state, the same program
    assert len(traced) == 2


def test_scores_that_are_no_numbers_have_no_accuracy():
    def broken(params, collections, images, keypoints):
        scores = predict(params, collections, images, keypoints)
        return scores.at[0].set(jnp.nan)

    evaluate = make_evaluator(broken, plain, Rows(), batch_size=8)
    with pytest.raises(ValueError, match="finite; got 5 of 37 rows .* under 'accura"):
        evaluate(STATE, mesh_of(1))


def test_evaluators_of_keypoints_need_a_network_that_reads_them():
    data = DigitData(predict, plain, Rows(), batch_size=8, uses_keypoints=False)
    assert build(data, severity=1.0) is not None
    assert build(data, keypoints="box") is None
    assert build(data, alphas=(0.1,)) is None
    with pytest.raises(ValueError, match="keypoints must be one of .*; got 'lost'"):
        build(data, keypoints="lost")
