"""Recognizers as official state dicts."""

import jax
import numpy as np
import pytest
from safetensors import safe_open

from kprpe_jax.registry import NETWORKS
from kprpe_jax.weights import import_weights
from kprpe_jax.weights.load import _layout
from kprpe_jax.weights.pytorch_file import save_pytorch
from kprpe_jax.weights.rules import _source_shape
from tests.commands.run_verb import fails
from tests.golden.golden import layout_params, load_layout
from tests.siblings import SIBLINGS, aligned_sibling, sibling

# What official files hold besides the weights: counters, buffers that follow from the
# architecture, the classifier of training.
LEFT_OUT = (
    "num_batches_tracked", "relative_position_index", "relative_coords_table",
    "logits.weight", "logits.bias",
)  # fmt: skip


@pytest.mark.parametrize("name", [x for x in SIBLINGS if x != "dlib_resnet_v1"])
def test_written_and_read_back_bit_for_bit(name, tmp_path):
    recognizer, path = sibling(name), tmp_path / "w.safetensors"
    count = save_pytorch(path, recognizer)
    again = import_weights(recognizer.module, path)
    jax.tree.map(np.testing.assert_array_equal, dict(again), dict(recognizer.variables))
    with safe_open(path, framework="np") as file:
        assert len(list(file.keys())) == count
        assert file.metadata()["license"] == recognizer.license
        assert file.metadata()["input"] == recognizer.input_spec.describe()


@pytest.mark.slow
@pytest.mark.golden
@pytest.mark.parametrize("layout", layout_params(""))
def test_names_and_shapes_are_the_official_ones(layout):
    if NETWORKS.get(layout) is None or NETWORKS[layout].kind != "recognizer":
        pytest.skip("no recognizer of that name")
    _, found = _layout(layout, {})
    ours = {rule.source: _source_shape(rule, found.shapes) for rule in found.rules}
    official = {
        name.removeprefix("net."): shape
        for name, shape in load_layout(layout).items()
        if not name.endswith(LEFT_OUT)
    }
    assert ours == official


def test_networks_without_an_official_layout(tmp_path, capsys):
    path = tmp_path / "w.safetensors"
    with pytest.raises(ValueError, match="no official PyTorch code has a AlignedBack"):
        save_pytorch(path, aligned_sibling())
    with pytest.raises(ValueError, match="no official PyTorch code has a DlibResNet"):
        save_pytorch(path, sibling("dlib_resnet_v1"))
    recognizer = sibling("iresnet_ir50")
    module = recognizer.module.clone(head_affine=True)
    message = "no official layout: official iResNets are the VARIANTS"
    with pytest.raises(ValueError, match=message):
        save_pytorch(path, recognizer.replace(module=module))
    with pytest.raises(ValueError, match=r"must end with .safetensors"):
        save_pytorch(tmp_path / "w.pt", recognizer)
    assert not list(tmp_path.iterdir())
    given = ("--fusion=norm", "--format=pytorch", f"--output={path}")
    assert "pytorch: is of recognizers; got --f" in fails(capsys, "export", *given)
