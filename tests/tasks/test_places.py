"""Where the variables of a network lie among those of a task."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from kprpe_jax import registry
from kprpe_jax.configs import gait, landmarks
from kprpe_jax.tasks import joint_alignment, networks, recognition
from kprpe_jax.tasks import landmarks as landmarks_task
from kprpe_jax.tasks.gait import make_model
from tests.siblings import SIBLINGS, aligned_sibling, sibling

PLAIN = {"params": {"norm": {"scale": 1.0}}, "batch_stats": {"norm": {"mean": 2.0}}}


def flat(tree):
    return flatten_dict(tree, sep="/")


@pytest.mark.parametrize(
    ("place", "params", "statistics"),
    [
        (recognition.PLACES["recognizer"], "params/backbone", "batch_stats"),
        (joint_alignment._place, "params/backbone/backbone", "batch_stats/backbone"),
        (landmarks_task._place, "params/detector", "batch_stats/detector"),
    ],
)
def test_names_above_a_network(place, params, statistics):
    assert flat(place(PLAIN)) == {
        f"{params}/norm/scale": 1.0,
        f"{statistics}/norm/mean": 2.0,
    }


def test_an_aligned_network_is_placed_as_it_is():
    aligned = aligned_sibling()
    got = flat(joint_alignment._place(aligned.variables))
    want = flat(networks.place(aligned.variables, params="backbone"))
    assert got.keys() == want.keys()
    inner = flat(joint_alignment._place(sibling("vit_kprpe_base_multihead").variables))
    assert inner.keys() <= want.keys()  # of its own backbone: below the warp


@pytest.mark.parametrize("trained", [False, True])
def test_a_network_below_a_task(trained):
    got = flat(networks.place_backbone(trained, PLAIN))
    above = "params/backbone" if trained else "backbone/params"
    assert set(got) == {f"{above}/norm/scale", "backbone/batch_stats/norm/mean"}


def test_published_networks_fit_the_tasks_of_their_kind():
    """Shapes of the published aligner and gait network lie in the tasks' own."""
    config = landmarks.get_config()
    own = landmarks_task.make_model(config.model)
    example = jnp.zeros((1, own.input_size, own.input_size, 3))
    init = lambda x: own.init(jax.random.key(0), x, method="find_face")  # noqa: E731
    wanted = flat(jax.eval_shape(init, example))
    published = registry.network("dfa_mobilenet025").make()
    init = lambda x: published.init(jax.random.key(0), x, method="find_face")  # noqa: E731
    stored = flat(jax.eval_shape(init, example))
    assert landmarks_task._place({"params": {"detector": {}}}) == {
        "params": {"detector": {}}
    }
    assert np.mean([path in wanted for path in stored]) > 0.9

    model = make_model(gait.get_config())
    fields = {"num_classes": 5, "image_size": model.image_size}
    other = registry.network("swingait2d_B1442_C2_gait3d").make(**fields)
    assert type(other) is type(model)


def test_siblings_are_recognizers():
    kinds = {registry.network(name).kind for name in SIBLINGS}
    assert kinds == set(recognition.PLACES)
