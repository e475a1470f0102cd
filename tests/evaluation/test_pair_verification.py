"""Official pairs from rows to numbers."""

from types import SimpleNamespace

import numpy as np
import pytest

from kprpe_jax.core.mesh import make_mesh
from kprpe_jax.data.rows import Rows
from kprpe_jax.evaluation.embedding import map_rows
from kprpe_jax.evaluation.evaluators.official_pairs import build
from kprpe_jax.evaluation.pair_verification import summary, verify_pairs
from kprpe_jax.evaluation.pairs import Pairs
from tests.evaluation.functions import function_recognizer

ONE = {"data": -1, "fsdp": 1, "class": 1}


class Images(Rows):
    """Rows in memory that can be chosen, as `Faces`."""

    def select(self, rows):
        return Images({key: array[rows] for key, array in self._arrays.items()})


def people(rng, spread):
    """Embeddings of twenty people, two each; pairs of four folds."""
    centers = rng.normal(size=(20, 16))
    noise = rng.normal(0, spread, (40, 16))
    embeddings = (np.repeat(centers, 2, 0) + noise).astype(np.float32)
    first = np.arange(0, 40, 2)
    second = np.stack([first + 1, np.roll(first, 1)], 1).ravel()
    return embeddings, np.repeat(first, 2), second, np.tile([True, False], 20)


def test_separable_people_are_all_right_wherever_their_mean_lies(rng):
    embeddings, first, second, same = people(rng, 0.005)
    embeddings = embeddings + 3
    result = verify_pairs(embeddings[first], embeddings[second], same, num_folds=4)
    assert result.accuracy.mean == result.centered.mean == result.auc == 1
    assert result.interval == (1, 1, 1)
    assert result.eer == 0
    assert summary(result)["tar_at_far_1e-1"] == 1


def test_ten_pairs_resolve_no_rate(rng):
    embeddings, first, second, same = people(rng, 0.5)
    part = slice(10)
    result = verify_pairs(
        embeddings[first[part]], embeddings[second[part]], same[part], num_folds=2
    )
    assert not [name for name in summary(result) if name.startswith("tar")]


def test_people_who_left_no_embedding_are_not_verified(rng):
    embeddings, first, second, same = people(rng, 0.005)
    sides = embeddings[first].copy(), embeddings[second].copy()
    for side in sides:
        side[same] = 0  # of every genuine pair both photos
    result = verify_pairs(*sides, same, num_folds=4)
    assert result.accuracy.mean < 0.9
    assert result.tar.tar == [0]


def test_numbers_of_people_who_are_taken_for_others(rng):
    embeddings, first, second, same = people(rng, 1.0)
    result = verify_pairs(embeddings[first], embeddings[second], same, num_folds=4)
    numbers = summary(result)
    assert 0.5 < numbers["accuracy"] < 1
    assert numbers["accuracy_low"] < numbers["accuracy"] < numbers["accuracy_high"]
    # Twenty impostor pairs resolve no rate below 1 / 20.
    names = [f"tar_at_far_1e-1{end}" for end in ("", "_low", "_high")]
    assert [name for name in numbers if name.startswith("tar")] == names
    for name in ("tar_at_far_1e-1", "eer", "auc"):
        low, high = (numbers[f"{name}_{end}"] for end in ("low", "high"))
        assert low <= numbers[name] <= high
        assert low < high
    cosine = (embeddings[first] * embeddings[second]).sum(1)
    cosine /= np.linalg.norm(embeddings[first], axis=1)
    cosine /= np.linalg.norm(embeddings[second], axis=1)
    third = np.sort(cosine[~same])[-3]  # two of twenty impostors may pass
    assert numbers["tar_at_far_1e-1"] == (cosine[same] > third).mean()


def test_rows_are_embedded_in_order_padding_left_out(rng):
    rows = Rows({"value": rng.normal(size=(13, 3)).astype(np.float32)})
    seen = []

    def embed(batch, index):
        seen.append(int(index))
        return batch["value"] * 2

    got = map_rows(embed, rows, batch_size=8, mesh=make_mesh(ONE))
    np.testing.assert_array_equal(got, 2 * rows._arrays["value"])
    assert seen == [0, 1]


def test_evaluator(rng):
    embeddings, first, second, same = people(rng, 0.01)
    levels = np.clip((embeddings + 4) * 32, 0, 255).astype(np.uint8)
    images = levels.reshape(40, 4, 4, 1).repeat(3, -1)
    rows = Images({"image": images, "keypoints": np.zeros((40, 5, 2), np.float32)})

    def embed(variables, images, keypoints):
        return variables * images[..., 0].reshape(len(images), -1)

    def evaluate(chosen, factor=2.0):
        pairs = Pairs(first[chosen], second[chosen], same[chosen], 4)
        data = SimpleNamespace(
            open_official_pairs=lambda name: (rows, pairs), batch_size=16
        )
        recognizer = function_recognizer(embed, (4, 4), np.float32(factor))
        return build(data, dataset="x")(recognizer, make_mesh(ONE))

    results = evaluate(np.arange(40))
    assert (results["pairs"], results["images"]) == (40, 40)
    assert results["accuracy"] == 1
    assert results["images_per_second"] > 0
    # One kind of pairs: no rates, and no number in their place.
    results = evaluate(same)
    assert set(results) == {
        "genuine_similarity", "pairs", "images", "images_per_second"
    }  # fmt: skip
    assert results["genuine_similarity"] == pytest.approx(1, abs=0.01)
    with pytest.raises(ValueError, match="official_pairs: values must be finite; got"):
        evaluate(same, np.nan)
