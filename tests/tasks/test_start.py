"""Networks that start from the weights of others, on the real digits."""

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from kprpe_jax import tasks
from kprpe_jax.recognizers import load_recognizer
from kprpe_jax.tasks import networks, recognition
from kprpe_jax.training import loop
from kprpe_jax.training.optimizer import make_optimizer
from kprpe_jax.training.start import put_start, read_start
from kprpe_jax.training.state import abstract_state, new_state
from kprpe_jax.weights.recognizer_file import save_recognizer
from tests.tasks import tiny

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A run of a transformer without bias tables."""
    workdir = tmp_path_factory.mktemp("plain")
    fields = {"model.position": "absolute", "model.depth": 2, "steps": 2}
    loop.train(tiny.make_config("recognition", **fields), workdir)
    return workdir


def start(spec, workdir, **fields):
    """The state that a run starts with, its recognizer, and what was told."""
    config = tiny.make_config("recognition", **{"model.depth": 2, **fields})
    with config.unlocked():
        config.model.weights = str(spec)
    mesh = tiny.one_device()
    task = tasks.build(config, mesh)
    transformation = make_optimizer(config.optimizer, steps=4).transformation
    abstract = abstract_state(task, mesh, transformation)
    begun = read_start(config, task, abstract, workdir)
    state = new_state(task, transformation, abstract, seed=3)
    return config, put_start(state, begun.merged), begun.lines


def outputs(config, state, images, keypoints):
    network = networks.make_network(config)
    own = recognition.backbone_collections(state.collections)
    variables = {"params": state.params["backbone"], **own}
    read = networks.input_spec(config, network).arguments(images, keypoints)
    return network.apply(variables, *read)


@pytest.mark.parametrize("scan", [True, False])
def test_kprpe_tables_change_nothing_at_first(plain, tmp_path, scan, rng):
    fields = {"model.position": "kprpe_multihead", "model.scan": scan}
    fields["model.position_options.anchor_width"] = 0.0
    config, state, lines = start(plain, tmp_path, **fields)
    assert lines[1] == (
        "new: params/backbone/bias_tables/bias, params/backbone/bias_tables/kernel"
    )
    assert lines[-1] == "left aside: nothing"
    images = rng.uniform(-1, 1, (3, 40, 40, 3)).astype(np.float32)
    keypoints = rng.random((3, 5, 2)).astype(np.float32)
    got = outputs(config, state, images, keypoints)
    want = load_recognizer(str(plain)).embed(images)
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_other_classes_start_fresh(plain, tmp_path):
    fields = {"model.position": "kprpe_multihead", "data.num_classes": 12}
    _, state, lines = start(plain, tmp_path, **fields)
    # Padded rows are as many as those of ten classes: shapes do not tell.
    assert state.params["class_centers"].shape == (256, 16)
    assert "new: params/backbone/bias_tables/bias, params/b" in lines[1]
    assert "params/class_centers" in lines[1]
    assert lines[-1] == "left aside: params/class_centers"


def test_another_image_size_resizes_what_depends_on_it(plain, tmp_path):
    fields = {"model.position": "absolute", "model.image_size": (48, 48)}
    fields["canvas.size"] = 48
    _, state, lines = start(plain, tmp_path, **fields)
    told = "resized from 5 x 5 to 6 x 6 tokens: params/backbone/head/linear1/kernel, "
    assert lines[1] == told + "params/backbone/position_embedding"
    assert state.params["backbone"]["position_embedding"].shape == (36, 16)


def test_an_exported_file_is_a_start_too(plain, tmp_path):
    path = tmp_path / "plain.safetensors"
    save_recognizer(path, load_recognizer(str(plain)))
    _, state, lines = start(path, tmp_path, **{"model.position": "absolute"})
    want = load_recognizer(str(plain)).variables["params"]
    jax.tree.map(np.testing.assert_array_equal, state.params["backbone"], want)
    assert "params/class_centers" in lines[1]  # the file has none


def test_weights_that_do_not_fit(plain, tmp_path):
    with pytest.raises(ValueError, match=r"must have the shapes of .* \d+ arrays diff"):
        start(plain, tmp_path, **{"model.width": 32})
    path = tmp_path / "bgr.safetensors"
    recognizer = load_recognizer(str(plain))
    spec = recognizer.input_spec._replace(color="bgr", scale=128.0)
    save_recognizer(path, recognizer.replace(input_spec=spec))
    with pytest.raises(
        ValueError, match=r"set config.input.color=bgr, config.input.scale=128.0"
    ):
        start(path, tmp_path, **{"model.position": "absolute"})


def test_a_run_is_a_frozen_backbone(plain):
    """Of set fusion and pair matching: any SPEC without a published name."""
    config = ConfigDict(dict(backbone="", backbone_weights=f"{plain}@last"))
    got = networks.load_backbone(config)
    assert got.fingerprint == load_recognizer(str(plain)).fingerprint
    with pytest.raises(ValueError, match=r"config.backbone_weights runs/none: must be"):
        networks.load_backbone(
            ConfigDict(dict(backbone="", backbone_weights="runs/none"))
        )
