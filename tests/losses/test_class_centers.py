"""The sharded margin softmax against an unsharded one written in NumPy."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.losses.class_centers import margin_softmax, padded_classes
from kprpe_jax.losses.margin import make_margin
from kprpe_jax.training.mesh import make_mesh
from tests.quick import quick_jit

MESHES = [(1, 1, 1), (8, 1, 1), (1, 1, 8), (2, 2, 2), (1, 4, 2)]
NUM_CLASSES, BATCH, WIDTH = 300, 16, 12


def mesh_of(data, fsdp, classes):
    devices = jax.devices()[: data * fsdp * classes]
    return make_mesh({"data": data, "fsdp": fsdp, "class": classes}, devices)


def softmax_on(margin, mesh):
    options = dict(margin=margin, num_classes=NUM_CLASSES, mesh=mesh)
    return partial(margin_softmax, **options)


@pytest.fixture
def batch(rng):
    embeddings = rng.normal(size=(BATCH, WIDTH)).astype(np.float32)
    centers = rng.normal(size=(padded_classes(NUM_CLASSES), WIDTH)).astype(np.float32)
    labels = rng.integers(0, NUM_CLASSES, BATCH).astype(np.int32)
    labels[5] = -1
    return embeddings, centers, labels


def oracle(embeddings, centers, labels, scale, m):
    """CosFace loss and accuracy, sample by sample in float64."""
    losses, correct = [], []
    for embedding, label in zip(embeddings.astype(np.float64), labels, strict=True):
        if label < 0:
            continue
        cosines = np.array(
            [
                embedding @ c / np.linalg.norm(embedding) / np.linalg.norm(c)
                for c in centers[:NUM_CLASSES].astype(np.float64)
            ]
        )
        correct.append(cosines.argmax() == label)
        cosines[label] -= m
        logits = scale * cosines
        losses.append(np.log(np.exp(logits).sum()) - logits[label])
    return np.mean(losses), np.mean(correct)


@pytest.mark.parametrize("shape", MESHES)
def test_equals_oracle(batch, shape):
    result = quick_jit(softmax_on(make_margin("cosface", margin=0.4), mesh_of(*shape)))(
        *batch
    )
    loss, accuracy = oracle(*batch, scale=64.0, m=0.4)
    np.testing.assert_allclose(result.loss, loss, rtol=1e-5)
    np.testing.assert_allclose(result.accuracy, accuracy, rtol=1e-6)


def test_accuracy_counts_the_largest_cosine(batch):
    embeddings, centers, labels = batch
    embeddings[:8] = centers[labels[:8]]  # these are right, whatever the margin
    function = softmax_on(make_margin("arcface", margin=0.5), mesh_of(2, 2, 2))
    result = quick_jit(function)(embeddings, centers, labels)
    _, accuracy = oracle(embeddings, centers, labels, scale=64.0, m=0.0)
    assert accuracy >= 7 / 15
    np.testing.assert_allclose(result.accuracy, accuracy, rtol=1e-6)


@pytest.mark.parametrize("kind", ["cosine", "cosface", "arcface"])
@pytest.mark.parametrize("shape", MESHES[1:])
def test_gradients_equal_those_of_one_device(batch, kind, shape):
    embeddings, centers, labels = batch
    margin = make_margin(kind, margin=0.5)

    def gradients(mesh):
        def loss(embeddings, centers):
            return softmax_on(margin, mesh)(embeddings, centers, labels).loss

        return quick_jit(jax.grad(loss, (0, 1)))(embeddings, centers)

    for one, many in zip(
        gradients(mesh_of(1, 1, 1)), gradients(mesh_of(*shape)), strict=True
    ):
        np.testing.assert_allclose(many, one, atol=1e-5 * np.abs(one).max())


def test_odd_inputs_are_finite(batch):
    embeddings, centers, labels = batch
    embeddings[0] = 0  # zero norm
    embeddings[1] = centers[labels[1]]  # cosine 1
    embeddings[2] = -centers[labels[2]]  # cosine -1

    function = softmax_on(make_margin("arcface", margin=0.5), mesh_of(2, 2, 2))

    def loss(embeddings, centers, labels):
        return function(embeddings, centers, labels).loss

    gradient_fn = quick_jit(jax.value_and_grad(loss, (0, 1)))
    for case in (labels, np.full_like(labels, 7), np.full_like(labels, -1)):
        value, gradients = gradient_fn(embeddings, centers, case)
        assert np.isfinite(value)
        assert all(np.isfinite(g).all() for g in gradients)
    assert value == 0  # no sample is labelled


def test_no_device_has_the_whole_logit_matrix(batch):
    embeddings, centers, labels = batch
    mesh = mesh_of(2, 1, 4)

    def loss(embeddings, centers):
        return margin_softmax(
            embeddings,
            centers,
            labels,
            margin=make_margin("cosface", margin=0.4),
            num_classes=NUM_CLASSES,
            mesh=mesh,
        ).loss

    place = lambda x, spec: jax.device_put(x, jax.NamedSharding(mesh, spec))  # noqa: E731
    args = (
        place(jnp.asarray(embeddings), jax.P(("data", "fsdp", "class"))),
        place(jnp.asarray(centers), jax.P("class")),
    )
    text = jax.jit(jax.grad(loss, (0, 1))).lower(*args).compile().as_text()
    rows = padded_classes(NUM_CLASSES)
    assert f"f32[{BATCH // 2},{rows // 4}]" in text
    assert f",{rows}]" not in text


def test_class_axis_must_divide_the_centers(batch):
    mesh = mesh_of(1, 1, 3)
    with pytest.raises(ValueError, match=r"class axis of the mesh \(3\) must divide"):
        margin_softmax(
            *batch,
            margin=make_margin("cosine", margin=0.0),
            num_classes=NUM_CLASSES,
            mesh=mesh,
        )
