"""Training of the aligner, on a small imported data set with five points."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from kprpe_jax import tasks
from kprpe_jax.configs import landmarks as landmarks_config
from kprpe_jax.losses.multibox import smooth_l1
from kprpe_jax.tasks import landmarks
from tests.quick import quick_jit
from tests.tasks import synthetic_people, tiny

SIDE = synthetic_people.SIZE


def make_config(**extra) -> ConfigDict:
    config = landmarks_config.get_config("small")
    with config.unlocked():
        del config.data.builder
        config.update_from_flattened_dict(
            {
                "steps": 4,
                "data.dir": synthetic_people.data_dir(),
                "data.name": "people",
                "data.points": "keypoints",
                "data.num_keypoints": 5,
                "data.five": (0, 1, 2, 3, 4),
                "data.num_classes": synthetic_people.PEOPLE,
                "data.image_shape": (SIDE, SIDE, 3),
                "data.batch_size": 8,
                "data.num_threads": 1,
                "augmentation.changes": ConfigDict(),
                "crop.jitter": 0.0,
                "model.input_size": 32,
                "model.anchors": ((13, 16), (19, 22), (26, 29)),
                "model.stem": 2,
                "model.width": 8,
                "optimizer.warmup": 0.0,
                "log.every_steps": 1,
                "evals.mixer.split": "train",
                "evals.nms.split": "train",
                "evals.batch_size": 16,
                **extra,
            }
        )
    return config.lock()


def traced_loss(config):
    """Shapes of the loss's results and of its gradient; nothing is compiled."""
    task = tasks.build(config, tiny.one_device())
    variables = dict(jax.eval_shape(task.init, jax.random.key(0)))
    params = variables.pop("params")
    source, _ = task.open_training(0)
    batch = tiny.batch_of(source, range(8))
    task.check_batch(batch)

    def loss(params, variables, rng):
        return task.loss(params, variables, batch, rng, train=True)

    grad = jax.value_and_grad(loss, has_aux=True)
    return params, jax.eval_shape(grad, params, variables, jax.random.key(1))


@pytest.mark.slow
def test_the_loss_has_a_gradient_for_detector_and_mixer():
    params, ((value, (_, metrics)), grads) = traced_loss(make_config())
    assert value.shape == ()
    assert set(metrics) == {"boxes", "keypoints", "scores", "mixed", "score"}
    assert params.keys() == {"detector", "aggregator"}
    assert jax.tree.structure(grads) == jax.tree.structure(params)


def test_the_full_config_is_the_papers_aligner():
    config = landmarks_config.get_config()
    assert config.model.input_size == 160
    model = landmarks.make_model(config.model)
    shapes = jax.eval_shape(
        lambda: model.init(jax.random.key(0), jnp.zeros((1, 160, 160, 3)))
    )
    count = sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(shapes["params"]))
    assert 0.47e6 < count < 0.5e6  # 0.49 M


def test_faults_are_one_sentence():
    with pytest.raises(
        ValueError, match=r"one of \[5, 68, 84, 468\], whose mirror .* got 7"
    ):
        tasks.build(make_config(**{"data.num_keypoints": 7}), tiny.one_device())
    with pytest.raises(ValueError, match="points must be a field of people"):
        tasks.build(make_config(**{"data.points": "landmarks"}), tiny.one_device())


@pytest.mark.slow
def test_learns_four_images_by_heart():
    """The loss is the sum of its parts and falls to nothing; the evaluators run."""
    task = tasks.build(make_config(**{"data.batch_size": 4}), tiny.one_device())
    variables = jax.jit(task.init)(jax.random.key(0))
    params = variables.pop("params")
    source, _ = task.open_training(0)
    batch = tiny.batch_of(source, range(4))
    optimizer = optax.adam(1e-2)
    state = optimizer.init(params)

    def loss(params, variables, rng):
        return task.loss(params, variables, batch, rng, train=True)

    grad = jax.jit(jax.value_and_grad(loss, has_aux=True))

    @jax.jit
    def update(grads, state, params):
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(params, updates), state

    losses = []
    for _ in range(250):
        (value, (variables, m)), grads = grad(params, variables, jax.random.key(1))
        params, state = update(grads, state, params)
        parts = 2 * m["boxes"] + m["keypoints"] + m["scores"] + m["mixed"]
        np.testing.assert_allclose(value, parts, rtol=1e-4)
        losses.append(float(value))
    assert losses[-1] < 0.01 * losses[0]
    trained = types.SimpleNamespace(params=params, collections=variables)
    for name in ("mixer", "nms"):
        result = task.evaluators[name](trained, tiny.one_device())
        assert result["count"] == synthetic_people.PEOPLE * synthetic_people.IMAGES
        assert result["missing"] < result["count"]
        assert np.isfinite(result["nme"])


def test_smooth_l1_is_quadratic_then_linear():
    got = smooth_l1(jnp.array([0.0, 0.5, -2.0]), 0.0)
    np.testing.assert_allclose(got, [0, 0.125, 1.5])


def test_box_of_the_frame_is_turned_and_mirrored_along():
    """What the labels call the face, not what its points span."""
    config = make_config(**{"crop.box": "frame", "crop.padding": 0.0})
    source = tasks.build(config, tiny.one_device()).open_training(0)[0]
    batch = tiny.batch_of(source, range(8))
    mesh = tiny.one_device()
    cut = quick_jit(landmarks._cropper(config, mesh))
    crops = cut(batch, jax.random.key(0))
    np.testing.assert_allclose(crops.boxes, np.tile([0, 0, 1, 1], (8, 1)), atol=1e-5)
    # The crop is the middle half: points lie twice as far apart in it.
    want = (batch["keypoints"] - 0.25) * 2
    np.testing.assert_allclose(crops.keypoints, want, atol=1e-4)

    with config.unlocked():
        config.augmentation.changes = ConfigDict(
            {"spatial": {"rotation_prob": 1.0, "rotation_degrees": 45.0}}
        )
    cut = quick_jit(landmarks._cropper(config, mesh))
    turned = cut(batch, jax.random.key(1))
    sides = turned.boxes[:, 2:] - turned.boxes[:, :2]
    np.testing.assert_allclose(sides.max(1), 1.0, atol=1e-4)
    with pytest.raises(ValueError, match="config.crop.box must be one of"):
        tasks.build(make_config(**{"crop.box": "eyes"}), tiny.one_device())
