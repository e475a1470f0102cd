"""The configs state what the papers state."""

import math
import pathlib

import jax
import pytest

from kprpe_jax import registry
from kprpe_jax.core.mesh import make_mesh
from kprpe_jax.data.prepare import default_arguments
from kprpe_jax.evaluation import evaluators
from kprpe_jax.evaluation.evaluators.faces import FaceData
from kprpe_jax.tasks import networks
from kprpe_jax.tasks.networks import make_network
from kprpe_jax.training.config import load_config
from kprpe_jax.training.optimizer import make_schedule

# As published with the sets.
IMAGES = {
    "ms1mv2": 5_822_653,
    "ms1mv3": 5_179_510,
    "webface4m": 4_235_242,
    "webface12m": 12_720_066,
}
IDENTITIES = {
    "ms1mv2": 85_742,
    "ms1mv3": 93_431,
    "webface4m": 205_990,
    "webface12m": 617_970,
}


@pytest.mark.parametrize(
    ("name", "learning_rate", "batch_size", "epochs", "repeat", "rate", "million"),
    [
        ("ms1mv2", 1e-3, 512, 34, 0.5, 1.0, 96.00),
        ("ms1mv3", 1e-4, 1024, 36, 0.1, 1.0, 115.08),
        ("webface4m", 1e-4, 1024, 36, 0.1, 0.6, 115.08),
        ("webface12m", 1e-4, 1024, 36, 0.1, 0.6, 115.08),
    ],
)
def test_table_6(name, learning_rate, batch_size, epochs, repeat, rate, million):
    config = load_config(f"configs/kprpe_faces.py:{name}")
    assert config.optimizer.learning_rate == learning_rate
    assert config.data.batch_size == batch_size
    assert config.data.repeat_probability == repeat
    assert config.optimizer.weight_decay == 0.05
    assert (config.optimizer.name, config.optimizer.schedule) == ("adamw", "cosine")
    loss = config.loss
    assert (loss.margin_kind, loss.margin, loss.concentration) == (
        "adaface", 0.4, 0.333
    )  # fmt: skip
    assert loss.sample_rate == rate
    assert loss.scale == 64
    assert (config.optimizer.b1, config.optimizer.clip_norm) == (0.9, 0)
    assert config.data.num_classes == IDENTITIES[name]
    assert config.augmentation.preset == "kprpe"
    per_epoch = IMAGES[name] / batch_size
    assert config.steps == math.floor(epochs * per_epoch)
    schedule = make_schedule(
        config.optimizer, steps=config.steps, steps_per_epoch=per_epoch
    )
    assert schedule(round(3 * per_epoch)) == pytest.approx(learning_rate, rel=1e-6)
    assert schedule(config.steps // 3) < learning_rate

    model = make_network(config)
    images = jax.ShapeDtypeStruct((1, 112, 112, 3), "float32")
    points = jax.ShapeDtypeStruct((1, 5, 2), "float32")
    params = jax.eval_shape(model.init, jax.random.key(0), images, points)["params"]
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    assert count / 1e6 == pytest.approx(million, abs=0.01)


@pytest.mark.parametrize(
    "name", [name for name in registry.NETWORKS if name.startswith("iresnet")]
)
def test_iresnets_are_the_official_ones(name):
    """So that their weights fit: eval.py --weights."""
    config = load_config(f"configs/lfw_iresnet.py:{name.removeprefix('iresnet_')}")
    mesh = make_mesh(config.mesh)
    assert make_network(config, mesh) == registry.network(name).make()


CONFIGS = [f for f in sorted(pathlib.Path("configs").glob("*.py")) if f.stem != "base"]


@pytest.mark.parametrize("argument", ["smal", "h1"])
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_an_unknown_argument_is_refused(path, argument):
    if argument == "h1" and path.stem in ("pair_matching", "pair_matching_casia"):
        assert load_config(f"{path}:h1").model.variant == "one_image"
        return
    message = "must be one of .*; got '{0}'|takes no argument; got {0}"
    with pytest.raises(ValueError, match=message.format(argument)):
        load_config(f"{path}:{argument}")


@pytest.mark.parametrize(
    "spec", ["lfw.py", "orl.py", "synthetic_faces.py", "balanced_alignment.py:orl"]
)
def test_held_out_identities_are_verified(spec):
    config = load_config(f"configs/{spec}")
    data = FaceData.of(config, needs_keypoints=False)
    for entry in evaluators.entries(config.evals).values():
        data.check_held_out(data.name, entry.split, entry.get("identities", ()))


def test_a_pod_trains_on_everybody():
    config = load_config("configs/kprpe_faces.py")
    entries = evaluators.entries(config.evals)
    assert {entry.type for entry in entries.values()} == {"official_pairs"}
    data = FaceData.of(config, needs_keypoints=True)
    with pytest.raises(ValueError, match="must be held-out identities of webface4m"):
        data.check_held_out(data.name, data.train_split, ())


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_evaluator_has_the_fields_of_its_type(path):
    for name, entry in evaluators.entries(load_config(path.stem).evals).items():
        build = evaluators.find_type(entry.type, None, name)
        fields = {field: entry[field] for field in entry if field != "type"}
        evaluators.check_fields(build, fields, name, entry.type)


def test_every_type_of_evaluator_is_there():
    for types in registry.EVALUATORS.values():
        for path in types.values():
            assert callable(registry.resolve(path))


def test_drawn_sets_of_one_folder_are_the_same():
    """What one config renders is what the next one wants, and `synthesize`."""
    drawn = {}
    specs = [*map(str, CONFIGS)]
    specs += ["configs/balanced_alignment.py:small", "configs/landmarks.py:small"]
    for spec in specs:
        data = load_config(spec).data
        if "builder" not in data:
            continue
        builder = registry.resolve(registry.DATA_SETS[data.name])
        given = default_arguments(builder)
        if data.dir == "data":
            assert given | data.builder.to_dict() == given, spec
        drawn.setdefault((data.dir, data.name), {})[spec] = given | {**data.builder}
    assert len(drawn) == 7
    for by_spec in drawn.values():
        first = next(iter(by_spec.values()))
        assert all(builder == first for builder in by_spec.values()), by_spec


@pytest.mark.parametrize("name", ["mobilefacenet", "adaface_ir50", "swin_kprpe_base"])
def test_fine_tuning_has_the_published_network_and_its_contract(name):
    config = load_config(f"configs/fine_tune.py:{name}")
    published = registry.network(name)
    assert make_network(config) == published.make()
    spec = networks.check_data(config, make_network(config))
    assert spec == published.input_spec
    assert (config.model.weights, config.model.freeze) == ("", ())
