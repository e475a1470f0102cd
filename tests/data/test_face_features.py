"""Features computed once: rows of both splits, on disk and back."""

import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.augmentation.recipe import make_recipe
from kprpe_jax.data.face_features import (
    collect,
    read_features,
    read_origin,
    write_features,
)
from kprpe_jax.data.feature_rows import choose_photos, degradation, feature_rows
from kprpe_jax.data.store import Rows
from kprpe_jax.weights.extractor import Extractor, Features

SIZE, PHOTOS, COPIES = 8, 5, 3
LABELS = np.array([4, 4, 7, 7, 7], np.int32)


def _extract(variables, images):
    """Left and right half's brightness."""
    halves = images.reshape(len(images), SIZE, 2, SIZE // 2, 3).mean((1, 3, 4))
    return Features(variables * halves, jnp.stack([halves, 2 * halves], -1))


EXTRACTOR = Extractor("halves", np.float32(2), _extract, (SIZE, SIZE), "print")


@pytest.fixture(scope="module")
def made():
    """Images, and rows made in batches of 2 and of 5."""
    images = np.random.default_rng(0).integers(
        0, 256, (PHOTOS, SIZE, SIZE, 3), np.uint8
    )
    source = Rows({"image": images, "label": LABELS})
    recipe = make_recipe("none", photometric={"prob": 1.0, "kind": "jitter"})
    parts = []
    for batch_size in (2, 5):
        rows = feature_rows(
            EXTRACTOR, copies=COPIES, batch_size=batch_size, recipe=recipe
        )
        splits = rows(EXTRACTOR.variables, source)
        parts.append({split: list(part) for split, part in splits.items()})
    return images, parts


@pytest.mark.slow
def test_clean_rows_are_sums_with_the_mirror_image(made):
    images, parts = made
    pixels = images / 127.5 - 1
    halves = [pixels[:, :, : SIZE // 2], pixels[:, :, SIZE // 2 :]]
    left, right = (half.mean((1, 2, 3)) for half in halves)
    rows = collect(parts[0]["clean"])
    both = 2 * (left + right)
    np.testing.assert_allclose(rows.embeddings, np.stack([both] * 2, 1), atol=1e-5)
    np.testing.assert_allclose(rows.statistics[:, 0, 0], left, atol=1e-6)
    np.testing.assert_array_equal(rows.labels, LABELS)
    np.testing.assert_array_equal(rows.photos, np.arange(PHOTOS))


@pytest.mark.slow
def test_degraded_rows_depend_on_photo_and_copy_alone(made):
    _, parts = made
    one, other = (collect(part["degraded"]) for part in parts)
    np.testing.assert_allclose(one.embeddings, other.embeddings, atol=1e-6)
    np.testing.assert_array_equal(one.photos, np.repeat(np.arange(PHOTOS), COPIES))
    np.testing.assert_array_equal(one.labels, np.repeat(LABELS, COPIES))
    copies = one.embeddings.reshape(PHOTOS, COPIES, -1)
    assert (np.ptp(copies, axis=1) > 1e-3).all()  # no two copies alike


def drawn_rows(rng, copies):
    number = PHOTOS * copies
    return [
        {
            "embedding": rng.normal(size=2).astype(np.float32),
            "statistics": rng.normal(size=(2, 2)).astype(np.float32),
            "label": LABELS[n // copies],
            "photo": np.int32(n // copies),
        }
        for n in range(number)
    ]


def test_there_and_back(rng, tmp_path):
    parts = {"clean": drawn_rows(rng, 1), "degraded": drawn_rows(rng, COPIES)}
    options = dict(data_dir=tmp_path, sizes=(2, 2))
    origin = {"fingerprint": "print", "copies": COPIES}
    path = write_features(parts, name="some", origin=origin, **options)
    for split in ("clean", "degraded"):
        got, want = read_features(tmp_path, "some", split), collect(parts[split])
        for a, b in zip(got, want, strict=True):
            np.testing.assert_array_equal(a, b)
    chosen = read_features(tmp_path, "some", "clean", identities=(5, 8))
    np.testing.assert_array_equal(chosen.labels, [7, 7, 7])
    assert read_origin(tmp_path, "some") == {**origin, "embed_dim": 2}
    with pytest.raises(ValueError, match="some labels of some must lie in 8 .. 9; got"):
        read_features(tmp_path, "some", "clean", identities=(8, 10))
    with pytest.raises(ValueError, match=f"{path} is there already; delete it or"):
        write_features(parts, name="some", origin=origin, **options)
    with pytest.raises(ValueError, match="must be small letters, digits and _"):
        write_features(parts, name="Some set", origin=origin, **options)


def test_photos_are_chosen_by_person():
    labels = np.array([3, 5, 3, -1, 5, 3, 9, -1])
    np.testing.assert_array_equal(choose_photos(labels), [0, 1, 2, 4, 5, 6])
    np.testing.assert_array_equal(
        choose_photos(labels, min_images=2, max_images=2), [0, 1, 2, 4]
    )
    assert not len(choose_photos(labels, min_images=4))
    assert degradation().occlusion.crop_prob > 0
