import jax
import ml_dtypes
import numpy as np
import pytest
from flax import linen as nn
from flax import traverse_util
from safetensors.numpy import save_file

from kprpe_jax import registry
from kprpe_jax.weights import check_weights, export_weights, import_weights
from kprpe_jax.weights.load import LAYOUTS, _layout
from kprpe_jax.weights.rules import _source_shape
from tests.first_of_kind import first_of_kind


@pytest.mark.parametrize("name", first_of_kind(registry.NETWORKS))
def test_parameters_are_those_registered(name):
    published = registry.NETWORKS[name]
    _, layout = _layout(published.make(), {})
    count = sum(
        np.prod(shape)
        for path, shape in layout.shapes.items()
        if path.startswith("params/")
    )
    assert count / 1e6 == pytest.approx(published.parameters, abs=6e-4)
    filled = {rule.target for rule in layout.rules}
    assert filled == set(layout.shapes)
    assert len({rule.source for rule in layout.rules}) == len(layout.rules)


def test_every_layout_is_there():
    for path in LAYOUTS.values():
        assert callable(registry.resolve(f"kprpe_jax.weights.{path}"))


def test_networks_without_published_weights():
    with pytest.raises(ValueError, match="no weights are published for Dense; use one"):
        import_weights(nn.Dense(1), {"weight": np.zeros((1, 1))})
    with pytest.raises(ValueError, match="unknown network 'vit_bas'; did you mean vit"):
        check_weights("vit_bas", {"weight": np.zeros((1, 1))})


def test_a_part_of_a_checkpoint_is_taken_and_the_rest_is_told(caplog):
    layout = LAYOUTS["MobileFaceNet"]
    network = registry.NETWORKS["mobilefacenet"].make()
    draw = lambda shape: np.ones(shape, np.float32)  # noqa: E731
    rules = registry.resolve(f"kprpe_jax.weights.{layout}")(network, {})
    plain = export_weights(
        network, traverse_util.unflatten_dict(
            {path: draw(shape) for path, shape in rules.shapes.items()}, sep="/"
        ),
    )  # fmt: skip
    nested = {f"module.model.{name}": array for name, array in plain.items()}
    nested |= {"head.kernel": draw((2, 3)), "module.head.bias": draw(3)}
    with caplog.at_level("WARNING"):
        found = import_weights(network, {"epoch": 1, "state_dict": nested})
    jax.tree.map(np.testing.assert_array_equal, found, import_weights(network, plain))
    (record,) = caplog.records
    assert "2 arrays of the file stand beside the MobileFaceNet" in record.message
    assert record.message.endswith("left aside: head.kernel, module.head.bias")


@pytest.fixture(scope="module")
def face_net():
    """A MobileFaceNet, and a state dict of ones."""
    network = registry.NETWORKS["mobilefacenet"].make()
    _, layout = _layout(network, {})
    return network, {
        rule.source: np.ones(_source_shape(rule, layout.shapes), np.float32)
        for rule in layout.rules
    }


def test_weights_that_are_not_finite(face_net):
    network, weights = face_net
    broken = np.ones(64, np.float32)
    broken[3] = np.nan
    message = "must be finite; NaN or infinity stands in conv1.bn.bias; give another"
    with pytest.raises(ValueError, match=message):
        import_weights(network, {**weights, "conv1.bn.bias": broken})


def test_weights_of_whole_numbers(face_net):
    network, weights = face_net
    whole = {**weights, "conv1.bn.bias": np.ones(64, np.int8)}
    with pytest.raises(ValueError, match="got int8 in conv1.bn.bias; give a file that"):
        import_weights(network, whole)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_becomes_float32_and_is_told(face_net, dtype, tmp_path, caplog):
    network, weights = face_net
    path = tmp_path / "w.safetensors"
    save_file({name: array.astype(dtype) for name, array in weights.items()}, path)
    with caplog.at_level("INFO"):
        found = import_weights(network, path)
    assert {x.dtype for x in jax.tree.leaves(found)} == {np.dtype(np.float32)}
    name = np.dtype(dtype).name
    assert f"{len(weights)} arrays are {name}, read as float32" in caplog.text


def test_checkpoints_with_other_parts(face_net, caplog):
    """arcface_torch's, with a part of its class centers; MobileFaceNet_Pytorch's."""
    network, weights = face_net
    centers = {"weight": np.zeros((10, 4), np.float32)}
    full = {
        "epoch": 3,
        "global_step": 10,
        "state_dict_backbone": weights,
        "state_dict_softmax_fc": centers,
    }
    with caplog.at_level("INFO"):
        import_weights(network, full)
    assert "state_dict_backbone is read, and not what is beside it: epoch, " in (
        caplog.text
    )
    import_weights(network, {"iter": 68, "net_state_dict": weights})
