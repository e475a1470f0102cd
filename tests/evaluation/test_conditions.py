import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.core import mesh as mesh_lib
from kprpe_jax.evaluation.conditions import (
    Condition,
    _key,
    make_evaluators,
    standard_conditions,
)

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


def make_evaluator(predict, distort, rows, conditions, **options):
    """One evaluator of these conditions."""
    return make_evaluators(predict, distort, rows, {"x": conditions}, **options)["x"]


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("batch_size", [8, 16, 40, 64])
def test_equals_a_loop_over_rows_whatever_the_batch_and_the_mesh(devices, batch_size):
    rows = Rows()
    evaluate = make_evaluator(
        predict, plain, rows, {"x": Condition()}, batch_size=batch_size
    )
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

    evaluate = make_evaluator(
        constant, plain, rows, {"x": Condition()}, batch_size=8, repeats=3
    )
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

    def build(**options):
        return make_evaluator(
            predict, noisy, rows, {"x": Condition()}, batch_size=16, **options
        )

    @jax.jit
    def drawn(key):
        return jax.random.randint(key, (16,), 0, SIDE**2)

    correct = [0, 0, 0]
    for repeat in range(3):
        for index in range(3):
            labels = rows.labels[index * 16 : index * 16 + 16]
            places = drawn(_key(0, repeat, index)).tolist()
            for place, label in zip(places, labels, strict=False):
                right = (place // SIDE + place % SIDE + 1) % CLASSES == label
                correct[repeat] += right
    assert len(set(correct)) > 1  # every repeat draws anew
    evaluate, mesh = build(repeats=3), mesh_of(1)
    results = evaluate(STATE, mesh)
    assert results == {"accuracy": pytest.approx(sum(correct) / (3 * 37)), "count": 37}
    assert evaluate(STATE, mesh) == results
    assert build(repeats=3, seed=1)(STATE, mesh) != results


def test_a_draw_does_not_depend_on_the_mesh():
    evaluate = make_evaluator(
        predict, noisy, Rows(), {"x": Condition()}, batch_size=16, repeats=2
    )
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
    conditions = {f"{s:g}": Condition(severity=s) for s in (0.0, 0.25, 0.5, 1.0, 1.5)}
    conditions["alpha"] = Condition(alpha=1.0)
    evaluate = make_evaluator(predict, watched, rows, conditions, batch_size=8)
    results = evaluate(STATE, mesh_of(8))
    assert len(traced) == 1
    assert (traced[0].severity, traced[0].alpha) == (0, 0)
    assert [results[name] for name in ("0", "0.25", "0.5")] == [1, 1, 1]
    # A row further down, or from the last to the first: never the same class.
    assert [results[name] for name in ("1", "1.5", "alpha")] == [0, 0, 0]
    other = types.SimpleNamespace(params={"shift": jnp.float32(2)}, collections={})
    assert evaluate(other, mesh_of(8))["0"] == 0  # another state, the same program
    assert len(traced) == 1


def test_scores_that_are_no_numbers_have_no_accuracy():
    def broken(params, collections, images, keypoints):
        scores = predict(params, collections, images, keypoints)
        return scores.at[0].set(jnp.nan)

    conditions = {"clean": Condition()}
    evaluate = make_evaluator(broken, plain, Rows(), conditions, batch_size=8)
    with pytest.raises(ValueError, match="finite; got 5 of 37 rows .* under 'clean'"):
        evaluate(STATE, mesh_of(1))


def test_standard_conditions():
    conditions = standard_conditions((0.0, 0.5, 1.5), (0.0, 0.1))
    assert list(conditions) == [
        "clean", "affine", "affine_box", "affine_swapped", "sweep", "noise",
    ]  # fmt: skip
    assert conditions["clean"] == {"clean": Condition(0.0, 0.0)}
    assert conditions["affine"]["affine"].severity == 1
    assert conditions["affine"]["affine"].keypoints == "moved"
    assert conditions["affine_box"]["affine_box"].keypoints == "box"
    assert conditions["affine_swapped"]["affine_swapped"].keypoints == "swapped"
    assert {k: c.severity for k, c in conditions["sweep"].items()} == {
        "0": 0.0, "0.5": 0.5, "1.5": 1.5,
    }  # fmt: skip
    assert {k: (c.alpha, c.noise) for k, c in conditions["noise"].items()} == {
        "uniform_0": (0.0, "uniform"), "uniform_0.1": (0.1, "uniform"),
        "scale_0": (0.0, "scale"), "scale_0.1": (0.1, "scale"),
    }  # fmt: skip
    assert all(c.severity == 1 for c in conditions["noise"].values())
