"""The one loop from rows to features, for every kind of network and any mesh."""

import jax
import numpy as np
import pytest

from kprpe_jax.core.mesh import make_mesh
from kprpe_jax.evaluation.embedding import embed
from tests.siblings import features, sibling

VIT, IRESNET = "vit_kprpe_base_multihead", "iresnet_ir50"


def faces(count, size=(112, 112), seed=0):
    rng = np.random.default_rng(seed)
    return [
        {
            "image": rng.integers(0, 256, (*size, 3), np.uint8),
            "keypoints": rng.random((5, 2), np.float32),
        }
        for _ in range(count)
    ]


def one_device():
    return make_mesh({"data": 1, "fsdp": 1, "class": 1}, jax.devices()[:1])


def arrays(rows):
    images = np.stack([row["image"] for row in rows]) / np.float32(127.5) - 1
    return images, np.stack([row["keypoints"] for row in rows])


@pytest.mark.slow
@pytest.mark.parametrize("name", [VIT, IRESNET, "mobilefacenet"])
def test_features_are_the_recognizers_own(name):
    rows = faces(3)
    wanted = features(sibling(name), *arrays(rows))
    found = embed(
        sibling(name), rows, batch_size=2, mesh=one_device(), fields=wanted._fields
    )
    for field, value in found._asdict().items():
        np.testing.assert_allclose(
            value, getattr(wanted, field), rtol=1e-4, atol=1e-5, err_msg=field
        )


def test_every_mesh_gives_the_same_and_fields_are_as_asked():
    rows = faces(5)
    one = embed(sibling(VIT), rows, batch_size=4, mesh=one_device())
    many = embed(sibling(VIT), rows, batch_size=8)
    assert one.patches is one.style is one.keypoints is None
    assert isinstance(one.embeddings, np.ndarray)
    np.testing.assert_allclose(many.embeddings, one.embeddings, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_mirror_images():
    rows, recognizer = faces(2), sibling(VIT)
    swap = [1, 0, 2, 4, 3]
    mirrored = [
        {
            "image": row["image"][:, ::-1],
            "keypoints": np.float32([1, 0]) + row["keypoints"][swap] * [-1, 1],
        }
        for row in rows
    ]
    mirrored = [{**r, "keypoints": np.float32(r["keypoints"])} for r in mirrored]
    plain, flipped = (
        embed(recognizer, r, batch_size=2, mesh=one_device()).embeddings
        for r in (rows, mirrored)
    )
    for mirror, wanted in (
        ("sum", plain + flipped),
        ("concatenate", np.concatenate([plain, flipped], 1)),
    ):
        found = embed(
            recognizer, rows, batch_size=2, mesh=one_device(), mirror=mirror
        ).embeddings
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_keypoints_are_needed_where_the_network_reads_them():
    rows = [{"image": row["image"]} for row in faces(2)]
    found = embed(sibling(IRESNET), rows, batch_size=2, mesh=one_device(), mirror="sum")
    assert found.embeddings.shape == (2, 8)
    with pytest.raises(ValueError, match="reads 5 keypoints of each image; got 0"):
        embed(sibling(VIT), rows, batch_size=2, mesh=one_device())


def _darken(rng, images, keypoints, share):
    return images * share + jax.random.uniform(rng), keypoints


def test_a_treatment_depends_on_seed_and_batch():
    rows = faces(1) * 4
    options = dict(batch_size=2, mesh=one_device(), treatment=_darken)
    a, b = (
        embed(
            sibling(IRESNET), rows, arguments=np.float32(0.5), seed=seed, **options
        ).embeddings
        for seed in (0, 1)
    )
    np.testing.assert_array_equal(a[0], a[1])
    assert np.abs(a[0] - a[2]).max() > 1e-3
    assert np.abs(a[0] - b[0]).max() > 1e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(mirror="product"), "unknown mirror 'product'"),
        (dict(fields=("tokens",)), "unknown field 'tokens'"),
        (dict(mirror="sum", points=3), r"must be \[B, 5, 2\].* got \(2, 3, 2\)"),
        (dict(batch_size=3, mesh=None), "3 rows do not divide over 8 devices"),
    ],
)
def test_mistakes(options, message):
    options = dict(batch_size=2, mesh=one_device()) | options
    points = options.pop("points", 5)
    rows = [{**row, "keypoints": row["keypoints"][:points]} for row in faces(2)]
    with pytest.raises(ValueError, match=message):
        embed(sibling(IRESNET), rows, **options)
