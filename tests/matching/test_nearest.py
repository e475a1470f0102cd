"""The exact index against sorting all cosines; FAISS against the exact index."""

import builtins

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

from kprpe_jax.core.features import Features
from kprpe_jax.core.mesh import make_mesh
from kprpe_jax.matching import nearest as subject
from kprpe_jax.matching.approximate import FaissIndex, recall
from kprpe_jax.matching.matchers import EarthMoversMatcher
from kprpe_jax.matching.nearest import ExactIndex, Ranking
from kprpe_jax.matching.sinkhorn import FAST
from kprpe_jax.matching.two_stage import first_stage, two_stage


@pytest.fixture
def rows(rng):
    """Every row stands there twice; one is zero."""
    rows = np.repeat(rng.normal(size=(20, 6)).astype(np.float32), 2, 0)
    rows[7] = 0
    return rows


@pytest.fixture
def queries(rng):
    rng.normal(size=500)
    return rng.normal(size=(5, 6)).astype(np.float32)


@pytest.fixture(scope="module")
def mesh():
    return make_mesh({"data": 2, "fsdp": 2, "class": 2})


def sorted_rows(queries, rows):
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = rows / np.where(length > 0, length, 1)
    queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    cosine = np.round(queries.astype(np.float64) @ rows.T, 6)
    order = np.argsort(-cosine, axis=1, kind="stable")
    return order, np.take_along_axis(cosine, order, 1)


@pytest.mark.parametrize(
    ("k", "block", "resident"), [(5, 40, None), (40, 16, None), (7, 16, 16), (3, 9, 0)]
)
@pytest.mark.parametrize("sharded", [False, True], ids=["one", "mesh"])
def test_equals_sorting(queries, rows, mesh, k, block, resident, sharded):
    index = ExactIndex(
        rows, mesh=mesh if sharded else None, block=block, resident=resident
    )
    assert len(index) == 40
    found = index.search(queries, k)
    order, cosine = sorted_rows(queries, rows)
    np.testing.assert_array_equal(found.rows, order[:, :k])
    np.testing.assert_allclose(found.scores, cosine[:, :k], atol=2e-6)


def test_gallery_lies_on_all_devices_or_is_sent(rows, mesh):
    index = ExactIndex(rows, mesh=mesh, block=16, resident=17)
    assert len(index._placed) == 2
    shards = index._placed[0].addressable_shards
    assert {shard.device.id for shard in shards} == set(range(8))
    assert {shard.data.shape for shard in shards} == {(2, 6)}
    assert not ExactIndex(rows, mesh=mesh, block=16, resident=0)._placed


def test_one_program_for_all_blocks(queries, rows):
    index = ExactIndex(rows, block=9, resident=20)
    index.search(queries, 4)
    compiled = subject._merge._cache_size()
    index.search(queries[::-1], 4)
    assert subject._merge._cache_size() == compiled


def test_errors(queries, rows):
    index = ExactIndex(rows)
    for k in (0, 41):
        with pytest.raises(ValueError, match=f"size of the gallery, 40; got {k}"):
            index.search(queries, k)
    with pytest.raises(ValueError, match=r"must be \[Q, 6\] .* got \(5, 3\)"):
        index.search(queries[:, :3], 1)
    queries[1, 2] = np.nan
    with pytest.raises(ValueError, match="values must be finite; .* is row 1"):
        index.search(queries, 1)
    rows[3] = np.inf
    with pytest.raises(ValueError, match="values must be finite; .* is row 3"):
        ExactIndex(rows)
    rows[3], rows[33] = 0, np.nan  # in the third block; the row is the gallery's
    with pytest.raises(ValueError, match="values must be finite; .* is row 33"):
        ExactIndex(rows, block=16)
    with pytest.raises(ValueError, match="there must be embeddings; got none"):
        ExactIndex(rows[:0])


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_approximate_finds_most(rng, kind):
    pytest.importorskip("faiss")
    rows = rng.normal(size=(600, 8)).astype(np.float32)
    queries = rng.normal(size=(20, 8)).astype(np.float32)
    exact = ExactIndex(rows).search(queries, 10)
    thorough = FaissIndex(rows, kind=kind, effort=600).search(queries, 10)
    assert recall(thorough, exact) == pytest.approx(1, abs=0.01)
    hasty = FaissIndex(rows, kind=kind, effort=1, neighbors=2).search(queries, 10)
    assert recall(hasty, exact) < recall(thorough, exact)
    same = thorough.rows == exact.rows
    np.testing.assert_allclose(thorough.scores[same], exact.scores[same], atol=1e-6)


def test_approximate_behind_the_same_interface(rng):
    pytest.importorskip("faiss")
    rows = Features(rng.normal(size=(30, 8)).astype(np.float32), None)
    queries = Features(rows.embeddings[:4] + 0.01, None)
    index = FaissIndex(rows.embeddings, effort=30)
    got = first_stage(queries, rows, ranks=3, index=index, exclude_rows=np.arange(4))
    want = first_stage(queries, rows, ranks=3, exclude_rows=np.arange(4))
    np.testing.assert_array_equal(got.rows, want.rows)
    with pytest.raises(ValueError, match="index must be of this gallery of 4 rows; g"):
        first_stage(rows, queries, ranks=3, index=index)
    with pytest.raises(ValueError, match="FaissIndex: unknown kind 'tree'"):
        FaissIndex(rows.embeddings, kind="tree")
    with pytest.raises(ValueError, match="FaissIndex: k must lie between 1 and the s"):
        index.search(queries.embeddings, 31)


def test_without_faiss(rows, monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name == "faiss":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ValueError, match="FAISS is not installed; run pip install"):
        FaissIndex(rows)


def test_recall_counts_sets():
    exact = Ranking(np.array([[1, 2], [3, 4]]), None)
    assert recall(Ranking(np.array([[2, 1], [3, -1]]), None), exact) == 0.75


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_both_stages_on_a_mesh(rng, kind):
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(kind,) * 2)

    def make(count):
        return Features(
            rng.normal(size=(count, 6)).astype(np.float32),
            rng.normal(size=(count, 3, 6)).astype(np.float32),
        )

    queries, gallery = make(9), make(17)
    matcher = EarthMoversMatcher(solver=FAST._replace(iterations=10), chunk=8)
    options = dict(k=4, ranks=6, mesh=mesh)
    one = two_stage(queries, gallery, k=4, ranks=6, matcher=matcher)
    shared = matcher._replace(mesh=mesh)
    many = two_stage(queries, gallery, matcher=shared, **options)
    np.testing.assert_array_equal(many.rows, one.rows)
    np.testing.assert_allclose(many.scores, one.scores, atol=1e-6)
    with pytest.raises(
        ValueError, match="multiple of the 8 devices of the mesh; got 4"
    ):
        two_stage(queries, gallery, matcher=shared._replace(chunk=4), **options)
