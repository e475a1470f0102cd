"""Models and streams in files: there and back, and whose they are."""

import jax
import numpy as np
import pytest

from kprpe_jax.fusion.files import (
    Stream,
    load_model,
    load_stream,
    save_model,
    save_stream,
)
from kprpe_jax.fusion.weighted import WeightedFusion
from tests.fusion.tiny import D, draw_variables, tiny_model


@pytest.fixture
def caface(rng, tmp_path):
    model = tiny_model()
    variables = draw_variables(model, rng)
    path = tmp_path / "caface.safetensors"
    return save_model(path, model, variables, backbone="b"), path, variables


def some_stream(model, rng):
    draw = lambda x: rng.normal(size=x.shape).astype(np.float32)  # noqa: E731
    empty = model.init_state(1)
    return Stream(type(empty)(*map(draw, empty)), 12)


def assert_same(one, other):
    assert type(one.state) is type(other.state)
    for a, b in zip(one.state, other.state, strict=True):
        np.testing.assert_array_equal(a, b)
    assert one.images == other.images


def test_models_come_back(caface, tmp_path):
    file, path, variables = caface
    again = load_model(path)
    assert again.model == tiny_model()
    assert again.backbone == "b"
    assert again.fingerprint == file.fingerprint
    jax.tree.map(np.testing.assert_array_equal, again.variables, variables)
    shapes = [jax.tree.map(np.shape, tree) for tree in (again.variables, variables)]
    assert shapes[0] == shapes[1]  # a scalar stays one
    assert not list(tmp_path.glob("*.partial"))
    average = save_model(tmp_path / "a.safetensors", WeightedFusion(D), {}, backbone="")
    assert average.model == WeightedFusion(D)
    assert average.variables == {}


@pytest.mark.parametrize("kind", ["caface", "average"])
def test_streams_come_back(caface, kind, rng, tmp_path):
    file = caface[0]
    if kind == "average":
        path = tmp_path / "average.safetensors"
        file = save_model(path, WeightedFusion(D), {}, backbone="")
    stream = some_stream(file.model, rng)
    save_stream(tmp_path / "s.npz", stream, file)
    assert_same(load_stream(tmp_path / "s.npz", file), stream)


def test_other_models_refuse_the_state(caface, rng, tmp_path):
    """Of other weights, of another M, of a model of another kind, or of no model."""
    file, _, variables = caface
    path = tmp_path / "s.npz"
    save_stream(path, some_stream(file.model, rng), file)

    def other(name, model, variables, backbone="b"):
        target = tmp_path / f"{name}.safetensors"
        return save_model(target, model, variables, backbone=backbone)

    more = tiny_model(num_clusters=5)
    params = {**variables["params"], "centers": variables["params"]["centers"] + 1}
    cases = {
        "it is of": other("weights", tiny_model(), {**variables, "params": params}),
        "it is of [0-9a-f]+; continue": other("moved", tiny_model(), variables, "c"),
        "3 clusters and not 5; continue with the model that began": other(
            "m", more, draw_variables(more, rng)
        ),
        r"state of a model with these sizes, \[\(1, 1\)": other(
            "average", WeightedFusion(D), {}
        ),
    }
    for match, model in cases.items():
        with pytest.raises(ValueError, match=match) as error:
            load_stream(path, model)
        assert "\n" not in str(error.value)


def test_damaged_and_foreign_files_are_described(caface, tmp_path):
    file, path, _ = caface
    bad = tmp_path / "bad.npz"
    whole = path.read_bytes()
    for content in (b"", b"nonsense", whole[: len(whole) // 2]):
        bad.write_bytes(content)
        with pytest.raises(ValueError, match="must be a stream's state written by"):
            load_stream(bad, file)
        with pytest.raises(ValueError, match="must be a fusion model written by save_"):
            load_model(bad)
    np.savez(bad, state_0=np.array([{}], object))  # a pickle inside
    with pytest.raises(ValueError, match="must be a stream's state written by"):
        load_stream(bad, file)
    with pytest.raises(ValueError, match="No such file"):
        load_model(tmp_path / "none.safetensors")
