"""The streamed search against sorting the whole score matrix."""

import jax
import numpy as np
import pytest

from kprpe_jax.core.mesh import make_mesh
from kprpe_jax.matching.nearest import search


@pytest.fixture
def people(rng):
    """Probes, their ids, gallery, its ids; every gallery row stands there twice."""
    probes = rng.normal(size=(16, 6)).astype(np.float32)
    gallery = np.repeat(rng.normal(size=(20, 6)).astype(np.float32), 2, 0)
    return probes, rng.integers(0, 30, 16), gallery, rng.permutation(40) % 25


def sorted_rows(probes, gallery):
    """Cosines in float64 and rows by descending cosine, the lower row at a tie."""
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (probes, gallery)]
    cosine = np.round(unit[0].astype(np.float64) @ unit[1].T, 6)
    return cosine, np.argsort(-cosine, axis=1, kind="stable")


@pytest.mark.parametrize(("k", "block"), [(1, 40), (5, 7), (5, 3), (40, 7), (3, 64)])
def test_equals_sorting(people, k, block):
    probes, probe_ids, gallery, gallery_ids = people
    found = search(probes, probe_ids, gallery, gallery_ids, k=k, block=block)
    cosine, order = sorted_rows(probes, gallery)
    np.testing.assert_array_equal(found.rows, order[:, :k])
    np.testing.assert_array_equal(found.ids, gallery_ids[order[:, :k]])
    best = np.take_along_axis(cosine, order[:, :k], 1)
    np.testing.assert_allclose(found.scores, best, atol=2e-6)
    same = probe_ids[:, None] == gallery_ids
    mate = np.where(same, cosine, -np.inf).max(1)
    np.testing.assert_allclose(found.mate_score, mate, atol=2e-6)
    assert np.isinf(mate).any()
    assert np.isfinite(mate).any()


def test_gallery_in_parts_is_the_gallery(people):
    probes, probe_ids, gallery, gallery_ids = people
    cuts = [3, 11, 11, 30]
    parts = zip(np.split(gallery, cuts), np.split(gallery_ids, cuts), strict=True)
    streamed = search(probes, probe_ids, parts, k=5, block=8)
    whole = search(probes, probe_ids, gallery, gallery_ids, k=5, block=8)
    jax.tree.map(np.testing.assert_array_equal, streamed, whole)


def test_probes_sharded_over_eight_devices(people):
    probes, probe_ids, gallery, gallery_ids = people
    mesh = make_mesh({"data": 2, "fsdp": 2, "class": 2})
    for count in (16, 11, 3):  # devices with as many, with fewer, with none
        given = probes[:count], probe_ids[:count], gallery, gallery_ids
        sharded = search(*given, k=5, block=16, mesh=mesh)
        one = search(*given, k=5, block=16)
        np.testing.assert_array_equal(sharded.rows, one.rows)
        np.testing.assert_array_equal(sharded.ids, one.ids)
        np.testing.assert_allclose(sharded.scores, one.scores, atol=1e-6)
        np.testing.assert_allclose(sharded.mate_score, one.mate_score, atol=1e-6)
    explicit = jax.make_mesh((8,), ("data",))  # JAX's own default axes
    again = search(*given, k=5, block=16, mesh=explicit)
    np.testing.assert_array_equal(again.rows, one.rows)


def test_a_zero_probe_ties_with_all(people):
    probes, probe_ids, gallery, gallery_ids = people
    found = search(0 * probes, probe_ids, gallery, gallery_ids, k=3)
    np.testing.assert_array_equal(found.rows, np.tile([0, 1, 2], (16, 1)))
    assert not found.scores.any()


def test_lengths_do_not_matter(people):
    probes, probe_ids, gallery, gallery_ids = people
    plain = search(probes, probe_ids, gallery, gallery_ids, k=3)
    sizes = np.exp2(np.linspace(-50, 90, len(gallery)).round())[:, None]
    scaled = np.float32(gallery * sizes)
    found = search(np.float32(probes * 2**90), probe_ids, scaled, gallery_ids, k=3)
    np.testing.assert_array_equal(found.rows, plain.rows)
    np.testing.assert_allclose(found.scores, plain.scores, atol=1e-6)


def test_errors(people):
    probes, probe_ids, gallery, gallery_ids = people
    with pytest.raises(
        ValueError, match="between 1 and the size of the gallery, 40; g"
    ):
        search(probes, probe_ids, gallery, gallery_ids, k=41)
    for ids in (probe_ids, gallery_ids + 2**40, np.full(40, -(2**31))):
        with pytest.raises(
            ValueError, match=rf"one identity .* got \({len(ids)},\) for 40"
        ):
            search(probes, probe_ids, gallery, ids, k=1)
    with pytest.raises(ValueError, match="k must be at least 1; got 0"):
        search(probes, probe_ids, gallery, gallery_ids, k=0)
    with pytest.raises(ValueError, match="between 1 and the size of the gallery, 0; g"):
        search(probes, probe_ids, gallery[:0], gallery_ids[:0], k=1)
    with pytest.raises(ValueError, match="an array needs gallery_ids"):
        search(probes, probe_ids, gallery, k=1)
    gallery[23, 2] = np.nan
    with pytest.raises(ValueError, match="search: .* got 1 of .* first is row 23"):
        search(probes, probe_ids, gallery, gallery_ids, k=1, block=8)
    probes[1] = np.inf
    for given in (probes, jax.numpy.asarray(probes)):
        with pytest.raises(ValueError, match="got 1 of 16 rows .* first is row 1"):
            search(given, probe_ids, gallery, gallery_ids, k=1)
