"""Pooled templates against a loop over templates and media."""

import numpy as np
import pytest

from kprpe_jax.evaluation.templates import pool_templates, template_rows


@pytest.fixture
def images(rng):
    """Embeddings, templates, media (the same numbers in every template), scores."""
    x = rng.normal(size=(60, 4)).astype(np.float32)
    return x, rng.integers(0, 9, 60) * 11, rng.integers(0, 4, 60), rng.random(60)


def unit(x):
    return x / np.linalg.norm(x)


@pytest.mark.parametrize("weights", ["norm", "equal"])
@pytest.mark.parametrize("scored", [False, True])
def test_media_pooling(images, weights, scored):
    x, templates, media, quality = images
    pooled = pool_templates(
        x, templates, media=media, weights=weights, quality=quality if scored else None
    )
    np.testing.assert_array_equal(pooled.ids, np.unique(templates))
    for template, got in zip(*pooled, strict=True):
        total = np.zeros(4)
        for medium in np.unique(media[templates == template]):
            rows = np.flatnonzero((templates == template) & (media == medium))
            total += np.mean(
                [
                    (unit(x[i]) if weights == "equal" else x[i])
                    * (quality[i] if scored else 1)
                    for i in rows
                ],
                axis=0,
            )
        np.testing.assert_allclose(got, unit(total), atol=1e-6)


def test_plain_mean(images):
    x, templates, _, _ = images
    for template, got in zip(*pool_templates(x, templates), strict=True):
        np.testing.assert_allclose(
            got, unit(x[templates == template].mean(0)), atol=1e-6
        )


def test_images_that_cancel_out_or_are_zero_give_zero():
    x = np.array([[1, 0], [-1, 0], [0, 0]], np.float32)
    pooled = pool_templates(x, np.array([0, 0, 1]), weights="equal")
    np.testing.assert_array_equal(pooled.unit_embeddings, np.zeros((2, 2)))


def test_rows():
    ids = np.array([2, 5, 9])
    np.testing.assert_array_equal(
        template_rows(ids, [[9, 2], [5, 5]]), [[2, 0], [1, 1]]
    )
    with pytest.raises(
        ValueError, match=r"got 2 without one, such as \[3, 10\]; embed"
    ):
        template_rows(ids, [2, 10, 3, 3])
    with pytest.raises(ValueError, match=r"got 1 without one, such as \[1\]"):
        template_rows(np.zeros(0, int), [1])


def test_errors(images):
    x, templates, media, quality = images
    with pytest.raises(ValueError, match=r"one value per image .* got \[\(59,\), "):
        pool_templates(x, templates[1:], media=media)
    with pytest.raises(ValueError, match="there must be images"):
        pool_templates(x[:0], templates[:0])
    with pytest.raises(ValueError, match="unknown weights 'square'"):
        pool_templates(x, templates, weights="square")
    quality[4] = np.nan
    with pytest.raises(ValueError, match="got 1 of 60 rows .* first is row 4"):
        pool_templates(x, templates, quality=quality)
    x[2] = np.inf
    with pytest.raises(ValueError, match="got 1 of 60 rows .* first is row 2"):
        pool_templates(x, templates)
