"""Rows of features: clean sums, degraded copies, any recognizer."""

import numpy as np
import pytest

from kprpe_jax.augmentation.recipe import make_recipe
from kprpe_jax.data.features import collect
from kprpe_jax.data.rows import Rows
from kprpe_jax.evaluation import feature_rows
from tests.halves import PHOTOS_SIZE, recognizer
from tests.tasks.tiny import one_device

PHOTOS, COPIES = 5, 3
LABELS = np.array([4, 4, 7, 7, 7], np.int32)
RECIPE = make_recipe("none", photometric={"prob": 1.0, "kind": "jitter"})


@pytest.fixture(scope="module")
def images():
    shape = PHOTOS, PHOTOS_SIZE, PHOTOS_SIZE, 3
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def test_clean_rows_are_sums_with_the_mirror_image(images):
    options = dict(batch_size=2, mesh=one_device())
    rows = feature_rows.clean_rows(
        recognizer(), Rows({"image": images}), LABELS, mirror="sum", **options
    )
    found = collect(list(rows))
    pixels = images / 127.5 - 1
    middle = PHOTOS_SIZE // 2
    left, right = (
        half.mean((1, 2, 3)) for half in (pixels[:, :, :middle], pixels[:, :, middle:])
    )
    both = 2 * (left + right)
    np.testing.assert_allclose(
        found.features.embeddings, np.stack([both] * 2, 1), atol=1e-5
    )
    np.testing.assert_allclose(found.features.style[:, 0, 0], left, atol=1e-6)
    assert found.features.patches is None
    np.testing.assert_array_equal(found.labels, LABELS)
    np.testing.assert_array_equal(found.photos, np.arange(PHOTOS))


def test_patches_are_kept_in_half_precision(images):
    rows = feature_rows.clean_rows(
        recognizer(),
        Rows({"image": images}),
        LABELS,
        fields=("embeddings", "patches"),
        batch_size=5,
        mesh=one_device(),
    )
    row = next(rows)
    assert row["patches"].dtype == np.float16
    assert "style" not in row
    shapes = feature_rows.row_shapes(recognizer(), ("embeddings", "patches"))
    assert shapes == {"embedding": (2,), "patches": row["patches"].shape}


@pytest.mark.slow
def test_degraded_rows_depend_on_photo_and_copy_alone(images):
    one, other = (
        collect(
            list(
                feature_rows.degraded_rows(
                    recognizer(),
                    Rows({"image": images}),
                    LABELS,
                    copies=COPIES,
                    batch_size=batch_size,
                    mesh=one_device(),
                    recipe=RECIPE,
                )
            )
        )
        for batch_size in (2, 5)
    )
    np.testing.assert_allclose(
        one.features.embeddings, other.features.embeddings, atol=1e-6
    )
    np.testing.assert_array_equal(one.photos, np.repeat(np.arange(PHOTOS), COPIES))
    np.testing.assert_array_equal(one.labels, np.repeat(LABELS, COPIES))
    copies = one.features.embeddings.reshape(PHOTOS, COPIES, -1)
    assert (np.ptp(copies, axis=1) > 1e-3).all()  # no two copies alike


def test_the_recipe_degrades():
    assert feature_rows.degradation().occlusion.crop_prob > 0
