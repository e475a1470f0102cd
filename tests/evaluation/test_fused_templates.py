"""Templates by fusion against one set at a time; probes that grow."""

import numpy as np
import pytest

from kprpe_jax.core.features import Features, take
from kprpe_jax.evaluation.fused_templates import fuse_templates
from kprpe_jax.evaluation.probe_sizes import probe_results, sample_probes
from kprpe_jax.evaluation.protocols import template_verification
from kprpe_jax.evaluation.templates import pool_templates
from kprpe_jax.fusion.cluster_aggregate import ImageSets
from kprpe_jax.fusion.weighted import WeightedFusion
from tests.fusion.tiny import CHANNELS, D, draw_variables, tiny_model, updater

COUNTS = np.array([1, 9, 3, 5])  # images of the templates 7, 2, 5, 11
IDS = np.array([7, 2, 5, 11])


@pytest.fixture
def images(rng):
    templates = rng.permutation(np.repeat(IDS, COUNTS))
    number = len(templates)
    embeddings = rng.normal(size=(number, D)) * rng.uniform(1, 9, (number, 1))
    style = rng.normal(size=(number, CHANNELS, 2)).astype(np.float32)
    return Features(embeddings.astype(np.float32), style=style), templates


@pytest.mark.slow
def test_average_is_what_pooling_gives(images):
    features, templates = images
    want = pool_templates(features.embeddings, templates, weights="equal")
    for options in ({}, dict(batch_images=2), dict(order_seed=1)):
        got = fuse_templates(WeightedFusion(D), {}, *images, **options)
        np.testing.assert_array_equal(got.ids, np.sort(IDS))
        np.testing.assert_allclose(got.unit_embeddings, want.unit_embeddings, atol=1e-5)


@pytest.mark.slow
def test_batches_are_those_of_a_stream(images):
    """CAFace with N' = 4: the first four images of a template see each other."""
    model = tiny_model()
    variables = draw_variables(model, np.random.default_rng(1))
    features, templates = images
    options = dict(batch_images=4)
    got = fuse_templates(model, variables, *images, **options).unit_embeddings
    update = updater(model, variables)
    state, rows = model.init_state(1), np.flatnonzero(templates == IDS[1])  # 9 images
    for start in range(0, len(rows), 4):
        mask = np.arange(4) < len(rows) - start
        part = np.resize(rows[start : start + 4], 4)
        state = update(state, ImageSets(take(features, part[None]), mask[None]))
    fused = np.asarray(model.apply(variables, state, method="finalize").embeddings[0])
    place = np.flatnonzero(np.sort(IDS) == IDS[1])[0]
    np.testing.assert_allclose(got[place], fused / np.linalg.norm(fused), atol=1e-4)
    other = fuse_templates(model, variables, *images, **options, order_seed=3)
    assert np.abs(other.unit_embeddings - got).max() > 1e-5  # it depends on the order


def test_fused_templates_enter_the_protocols(images):
    fused = fuse_templates(WeightedFusion(D), {}, *images)
    result = template_verification(
        fused, [2, 5, 7], [2, 7, 11], [True, False, False], fars=(0.5,)
    )
    assert result.tar == 1


def test_bad_input_is_described(images):
    features, templates = images
    embeddings, style = features.embeddings, features.style
    model = WeightedFusion(D)

    def fuse(embeddings, style=style, templates=templates):
        return fuse_templates(model, {}, Features(embeddings, style=style), templates)

    with pytest.raises(ValueError, match="must give one row per image and there must"):
        fuse(embeddings, style[:-1])
    with pytest.raises(ValueError, match="must give one row per image and there must"):
        fuse(embeddings[:0], style[:0], templates[:0])
    bad = embeddings.copy()
    bad[3] = np.nan
    with pytest.raises(ValueError, match="finite"):
        fuse(bad)
    with pytest.raises(ValueError, match="embeddings must have 6 channels; got 5"):
        fuse(embeddings[:, :5])


def test_probes_are_nested_and_found(rng):
    """Noise averages out: larger probes are found, and their rows begin alike."""
    people, each = 6, 8
    centers = np.eye(people, D)
    labels = np.repeat(np.arange(people), each)
    embeddings = centers[labels] + rng.normal(0, 0.6, (people * each, D))
    features = Features(embeddings.astype(np.float32))
    probes = sample_probes(labels, size=8, repeats=3, seed=0)
    assert probes.rows.shape == (18, 8)
    for rows, label in zip(*probes, strict=True):
        assert len(set(rows)) == 8
        assert (labels[rows] == label).all()
    results = probe_results(
        WeightedFusion(D), {}, features, probes,
        centers, np.arange(people), sizes=(1, 8), fars=(0.1,),
    )  # fmt: skip
    unit = embeddings / np.linalg.norm(embeddings, axis=-1, keepdims=True)
    for size, result in results.items():
        fused = unit[probes.rows[:, :size]].mean(1)
        best = (fused @ centers.T).argmax(1)
        assert result.rank1 == np.mean(best == probes.labels)
    assert results[1].rank1 < results[8].rank1
    assert results[1].tar[0] <= results[8].tar[0]
    with pytest.raises(
        ValueError, match="everyone must have 9 images; got 8 of person"
    ):
        sample_probes(labels, size=9, repeats=1, seed=0)
    options = dict(sizes=(1,))
    given = WeightedFusion(D), {}, features, probes
    with pytest.raises(
        ValueError, match=r"must have a gallery row; got none for \[5\]"
    ):
        probe_results(*given, centers[:5], np.arange(5), **options)
    with pytest.raises(ValueError, match="sizes must be at most 8, the images of a"):
        probe_results(*given, centers, np.arange(people), sizes=(9,))
