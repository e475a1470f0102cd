"""CurricularFace against float64 loops: t, hard negatives, sharded and sampled."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.losses.class_centers import margin_softmax, padded_classes
from kprpe_jax.losses.class_sampling import sample_classes, take_rows
from kprpe_jax.losses.curricularface import initial_target_mean
from kprpe_jax.losses.margin import make_margin
from tests.meshes import mesh_of
from tests.quick import quick_jit

NUM_CLASSES, BATCH, WIDTH = 300, 16, 6
SCALE, M = 16.0, 0.5
MARGIN = make_margin("curricularface", margin=M, scale=SCALE)


@pytest.fixture
def batch(rng):
    """Few dimensions, so that negatives are hard; two rows without a class."""
    embeddings = rng.normal(size=(BATCH, WIDTH)).astype(np.float32)
    centers = rng.normal(size=(padded_classes(NUM_CLASSES), WIDTH)).astype(np.float32)
    labels = rng.integers(0, NUM_CLASSES, BATCH).astype(np.int32)
    embeddings[:8] += 2 * centers[labels[:8]]
    labels[5], labels[9] = -1, NUM_CLASSES
    return embeddings, centers, labels


def oracle(embeddings, centers, labels, t, kept=range(NUM_CLASSES)):
    """Loss, t after the batch, and how many negatives were hard; sample by sample."""
    cosines = {}
    for row, label in enumerate(labels):
        if 0 <= label < NUM_CLASSES:
            f = embeddings[row].astype(np.float64)
            cosines[row] = {
                c: f @ x / np.linalg.norm(f) / np.linalg.norm(x)
                for c, x in ((c, centers[c].astype(np.float64)) for c in kept)
            }
    t = 0.01 * np.mean([cosines[r][labels[r]] for r in cosines]) + 0.99 * t
    losses, hard = [], 0
    for row, found in cosines.items():
        angle = np.arccos(found[labels[row]]) + M
        logits = {}
        for c, cosine in found.items():
            if c == labels[row]:
                cosine = np.cos(min(angle, np.pi))
            elif cosine > np.cos(angle):
                cosine, hard = cosine * (t + cosine), hard + 1
            logits[c] = SCALE * cosine
        total = np.log(sum(np.exp(x) for x in logits.values()))
        losses.append(total - logits[labels[row]])
    return np.mean(losses), t, hard


def softmax_on(mesh):
    return partial(margin_softmax, margin=MARGIN, num_classes=NUM_CLASSES, mesh=mesh)


@pytest.mark.parametrize(
    "shape",
    [(2, 2, 2), pytest.param((1, 1, 8), marks=pytest.mark.slow)],
)
def test_sharded_equals_oracle(batch, shape):
    """Two calls, so that t moves; gradients as of one device; no labels: t stays."""

    def step_on(mesh):
        def loss(embeddings, centers, labels, t):
            result = softmax_on(mesh)(embeddings, centers, labels, target_mean=t)
            return result.loss, result.target_mean

        return quick_jit(jax.value_and_grad(loss, (0, 1), has_aux=True))

    step, t, want_t = step_on(mesh_of(*shape)), initial_target_mean(), 0.0
    for _ in range(2):
        (loss, t), gradients = step(*batch, t)
        want, want_t, hard = oracle(*batch, want_t)
        np.testing.assert_allclose(loss, want, rtol=1e-5)
        np.testing.assert_allclose(t, want_t, rtol=1e-5)
        assert 100 < hard < BATCH * NUM_CLASSES
    assert np.abs(gradients[0][batch[2] < 0]).max() == 0
    _, alone = step_on(mesh_of(1, 1, 1))(*batch, jnp.float32(0.2))
    _, many = step(*batch, jnp.float32(0.2))
    for one, got in zip(alone, many, strict=True):
        np.testing.assert_allclose(got, one, atol=1e-5 * np.abs(one).max())
    unlabeled = *batch[:2], np.full_like(batch[2], -1), jnp.float32(0.2)
    (loss, t), _ = step(*unlabeled)
    assert (loss, t) == (0, np.float32(0.2))


@pytest.mark.parametrize(
    "shape", [(2, 2, 2), pytest.param((1, 1, 1), marks=pytest.mark.slow)]
)
def test_sampled_equals_oracle(batch, shape):
    """Hard negatives are those of the sample; t is that of all centers."""
    mesh, t = mesh_of(*shape), jnp.float32(0.3)

    @quick_jit
    def run(embeddings, centers, labels):
        sample = sample_classes(
            jax.random.key(5), labels, rows=len(centers), num_classes=NUM_CLASSES,
            sample_rate=0.2, mesh=mesh,
        )  # fmt: skip
        taken = take_rows(centers, sample.rows, mesh)
        options = dict(classes=sample.classes, target_mean=t)
        return softmax_on(mesh)(embeddings, taken, labels, **options), sample.classes

    result, classes = run(*batch)
    kept = [int(c) for c in classes if c >= 0]
    loss, after, hard = oracle(*batch, 0.3, kept)
    np.testing.assert_allclose(result.loss, loss, rtol=1e-5)
    np.testing.assert_allclose(result.target_mean, after, rtol=1e-5)
    assert hard > 20


def test_t_is_asked_for(batch):
    with pytest.raises(ValueError, match="CurricularFace needs the running .* got non"):
        softmax_on(mesh_of(1, 1, 1))(*batch)
    cosface = make_margin("cosface", margin=0.4)
    with pytest.raises(ValueError, match="other margins none; got one; see `initial_t"):
        margin_softmax(
            *batch,
            margin=cosface,
            num_classes=NUM_CLASSES,
            mesh=mesh_of(1, 1, 1),
            target_mean=jnp.float32(0),
        )
