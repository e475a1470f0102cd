"""The sharded margin softmax against an unsharded one written in NumPy."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.losses.class_centers import margin_softmax, padded_classes
from kprpe_jax.losses.class_sampling import sample_classes, take_rows
from kprpe_jax.losses.margin import make_margin
from tests.meshes import mesh_of
from tests.quick import quick_jit

MESHES = [(1, 1, 1), (8, 1, 1), (1, 1, 8), (2, 2, 2), (1, 4, 2)]
NUM_CLASSES, BATCH, WIDTH = 300, 16, 12


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
    assert value == 0  # no sample is labeled


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


def test_any_class_axis_has_its_rows(batch):
    for shards in (1, 2, 256, -1):
        assert padded_classes(NUM_CLASSES, shards) == padded_classes(NUM_CLASSES)
    assert padded_classes(100, 3) == 768
    assert padded_classes(600, 512) == 1024
    options = dict(margin=make_margin("cosface", margin=0.3), num_classes=NUM_CLASSES)
    embeddings, centers, labels = batch
    rows = BATCH - BATCH % 3
    few = embeddings[:rows], labels[:rows]
    wide = np.zeros((padded_classes(NUM_CLASSES, 3), WIDTH), np.float32)
    wide[:NUM_CLASSES] = centers[:NUM_CLASSES]
    margin = options["margin"]
    three = quick_jit(softmax_on(margin, mesh_of(1, 1, 3)))(few[0], wide, few[1])
    one = quick_jit(softmax_on(margin, mesh_of(1, 1, 1)))(few[0], centers, few[1])
    np.testing.assert_allclose(three.loss, one.loss, rtol=1e-6)
    with pytest.raises(ValueError, match=r"class axis of the mesh \(3\) must divide"):
        margin_softmax(few[0], centers, few[1], mesh=mesh_of(1, 1, 3), **options)


def test_shapes_that_do_not_belong_together(batch):
    embeddings, centers, labels = batch
    options = dict(margin=make_margin("cosine", margin=0.0), num_classes=NUM_CLASSES)
    for given in (
        (embeddings[:5], centers, labels[:5]),
        (embeddings[:, :3], centers, labels),
        (embeddings, centers, labels[:8]),
        (embeddings, centers, labels[:, None]),
    ):
        with pytest.raises(ValueError, match=r"B a multiple of the 8 devices; got"):
            margin_softmax(*given, mesh=mesh_of(2, 1, 4), **options)


def test_a_mesh_as_jax_makes_it(batch):
    """With Explicit axes, the default of `jax.make_mesh`."""
    embeddings, centers, labels = batch
    explicit = jax.make_mesh((2, 1, 4), ("data", "fsdp", "class"))
    margin = make_margin("cosface", margin=0.3)
    one = quick_jit(softmax_on(margin, mesh_of(1, 1, 1)))(*batch)
    place = lambda x, *axes: jax.device_put(  # noqa: E731
        x, jax.NamedSharding(explicit, jax.P(*axes))
    )
    rows = ("data", "fsdp", "class")
    arrays = place(embeddings, rows), place(centers, "class"), place(labels, rows)
    for given in (arrays, batch):
        many = quick_jit(softmax_on(margin, explicit))(*given)
        np.testing.assert_allclose(many.loss, one.loss, rtol=1e-6)


def test_an_ignored_row_may_hold_anything(batch):
    embeddings, centers, labels = map(np.array, batch)
    labels[1] = -1

    softmax = softmax_on(make_margin("arcface", margin=0.5), mesh_of(1, 1, 1))

    def loss(embeddings, centers):
        return softmax(embeddings, centers, labels).loss

    run = quick_jit(jax.value_and_grad(loss, (0, 1)))
    want = run(embeddings, centers)
    embeddings[1] = np.nan
    got = run(embeddings, centers)
    jax.tree.map(np.testing.assert_array_equal, got, want)
    assert np.isfinite(got[0])


def test_embeddings_of_zero_are_nobodys(batch):
    embeddings, centers, labels = batch
    softmax = softmax_on(make_margin("cosine", margin=0.0), mesh_of(1, 1, 1))
    result = quick_jit(softmax)(0 * embeddings, centers, labels)
    assert np.isfinite(result.loss)
    assert result.accuracy == 0


def sampled_oracle(embeddings, centers, labels, kept):
    """CosFace loss over these classes, in float64."""
    losses = []
    for embedding, label in zip(embeddings.astype(np.float64), labels, strict=True):
        if label >= 0:
            chosen = centers[kept].astype(np.float64)
            cosine = chosen @ embedding / np.linalg.norm(chosen, axis=1)
            cosine /= np.linalg.norm(embedding)
            logits = 64 * (cosine - 0.4 * (np.array(kept) == label))
            losses.append(np.log(np.exp(logits).sum()) - logits[kept.index(label)])
    return np.mean(losses)


def sampled_loss(mesh, margin, rate):
    """(embeddings, centers, labels) -> loss of a sample, and the sample."""

    def loss(embeddings, centers, labels):
        sample = sample_classes(
            jax.random.key(5), labels, rows=len(centers), num_classes=NUM_CLASSES,
            sample_rate=rate, mesh=mesh,
        )  # fmt: skip
        taken = take_rows(centers, sample.rows, mesh)
        result = softmax_on(margin, mesh)(
            embeddings, taken, labels, classes=sample.classes
        )
        return result.loss, sample

    return loss


@pytest.mark.parametrize(
    ("rate", "shape"),
    [(0.6, (1, 1, 1)), (0.1, (2, 2, 2)), (0.01, (2, 2, 2)), (0.1, (1, 2, 4))],
)
def test_sampled_equals_oracle(batch, rate, shape):
    """The loss is that over the sample, which holds the batch; others get nothing."""
    _, centers, labels = batch
    loss = sampled_loss(mesh_of(*shape), make_margin("cosface", margin=0.4), rate)
    (value, sample), gradients = quick_jit(
        jax.value_and_grad(loss, (0, 1), has_aux=True)
    )(*batch)
    kept = [int(c) for c in sample.classes if c >= 0]
    np.testing.assert_allclose(value, sampled_oracle(*batch, kept), rtol=1e-5)
    moved = np.flatnonzero(np.abs(gradients[1]).sum(1))
    assert set(labels[labels >= 0]) <= set(moved) <= set(kept)
    assert all(np.isfinite(g).all() for g in gradients)
    rows = len(centers) // shape[-1]
    overflow, wanted = 0, 0
    for shard in range(shape[-1]):
        here = min(max(NUM_CLASSES - shard * rows, 0), rows)
        count = len({c for c in labels if shard * rows <= c < (shard + 1) * rows})
        overflow += max(count - int(rate * here), 0)
        wanted += max(count, int(rate * here))
    assert len(set(kept)) == len(kept) == wanted
    assert sample.overflow == overflow
    assert (overflow > 0) == (rate == 0.01)


def test_sampled_gradients_equal_those_of_one_data_device(batch):
    def gradients(shape):
        margin = make_margin("arcface", margin=0.5)
        loss = sampled_loss(mesh_of(*shape), margin, 0.3)
        return quick_jit(jax.grad(loss, (0, 1), has_aux=True))(*batch)[0]

    for one, many in zip(gradients((1, 1, 2)), gradients((2, 2, 2)), strict=True):
        np.testing.assert_allclose(many, one, atol=1e-5 * np.abs(one).max())


def test_a_sampled_step_reduces_only_the_chosen_gradients(batch):
    """Between devices go [slots, D] numbers of the centers' gradient, not [rows, D]."""
    embeddings, centers, labels = batch
    mesh = mesh_of(4, 1, 2)
    loss = sampled_loss(mesh, make_margin("cosface", margin=0.4), 0.1)
    place = lambda x, spec: jax.device_put(x, jax.NamedSharding(mesh, spec))  # noqa: E731
    args = (
        place(jnp.asarray(embeddings), jax.P(("data", "fsdp", "class"))),
        place(jnp.asarray(centers), jax.P("class")),
        jnp.asarray(labels),
    )
    gradient = jax.jit(jax.grad(loss, (0, 1), has_aux=True))
    text = gradient.lower(*args).compile().as_text()
    reduced = [line for line in text.splitlines() if " all-reduce" in line]
    rows = len(centers) // 2
    slots = int(0.1 * rows)

    def among(count: int) -> bool:  # either way round, as the compiler likes
        shapes = f"f32[{count},{WIDTH}]", f"f32[{WIDTH},{count}]"
        return any(shape in line for line in reduced for shape in shapes)

    assert among(slots)
    assert not among(rows)


def test_labels_out_of_range_are_ignored(batch):
    embeddings, centers, labels = batch
    function = quick_jit(
        softmax_on(make_margin("cosface", margin=0.4), mesh_of(1, 1, 2))
    )
    want = function(*batch)
    labels[5] = NUM_CLASSES + 3  # a row that only pads the centers
    assert function(embeddings, centers, labels).loss == want.loss
    labels[5] = 10**6
    assert function(embeddings, centers, labels).loss == want.loss


def test_quality_follows_its_sample_to_every_device(batch, rng):
    quality = rng.uniform(-1, 1, BATCH).astype(np.float32)
    margin = make_margin("adaface", margin=0.4)
    results = [
        quick_jit(softmax_on(margin, mesh_of(*shape)))(*batch, quality=quality)
        for shape in ((1, 1, 1), (2, 2, 2))
    ]
    np.testing.assert_allclose(results[0].loss, results[1].loss, rtol=1e-5)
    average = quick_jit(softmax_on(margin, mesh_of(1, 1, 1)))(
        *batch, quality=0 * quality
    )
    assert abs(average.loss - results[0].loss) > 1e-3


def test_floor_bounds_the_value_and_not_the_gradient(batch):
    embeddings, centers, labels = batch
    embeddings = -centers[np.maximum(labels, 0)]  # cosine -1: loss beyond 69
    function = softmax_on(make_margin("cosface", margin=0.4), mesh_of(1, 1, 1))

    def loss(embeddings, floor):
        return function(embeddings, centers, labels, probability_floor=floor).loss

    floored, plain = (
        quick_jit(jax.value_and_grad(partial(loss, floor=floor)))(embeddings)
        for floor in (1e-30, 0.0)
    )
    np.testing.assert_allclose(floored[0], 30 * np.log(10), rtol=1e-5)
    assert plain[0] > 80
    labeled = labels >= 0
    np.testing.assert_allclose(
        16 * floored[1][labeled], 15 * plain[1][labeled], rtol=1e-4, atol=1e-5
    )
    assert np.abs(floored[1][~labeled]).max() > 0
    assert np.abs(plain[1][~labeled]).max() == 0


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (dict(classes=np.zeros(3)), r"for each row of the centers, 512; got shape"),
        (dict(num_classes=600), r"at least one per class \(600\); got 512 rows"),
        (dict(quality=np.zeros(16)), r"and other margins none; got \(16,\); see"),
        (dict(margin=make_margin("adaface", margin=0.4)), "AdaFace needs .* got none"),
    ],
)
def test_bad_options(batch, options, match):
    defaults = dict(num_classes=NUM_CLASSES, margin=make_margin("cosine", margin=0.0))
    with pytest.raises(ValueError, match=match):
        margin_softmax(*batch, mesh=mesh_of(1, 1, 1), **{**defaults, **options})
