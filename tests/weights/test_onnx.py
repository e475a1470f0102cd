"""ONNX files: real ones that PyTorch exported, and what strangers may send."""

import pathlib
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from kprpe_jax.backbones.iresnet import VARIANTS, IResNet
from kprpe_jax.backbones.mobilefacenet import InsightFaceMobileFaceNet
from kprpe_jax.recognizers import load_recognizer
from kprpe_jax.weights import import_weights
from kprpe_jax.weights.state_dict import load_state_dict
from tests.quick import quick_jit

FILES = pathlib.Path(__file__).parents[1] / "fixtures" / "onnx"
SMALL = dict(stage_sizes=(2, 1, 1, 1), widths=(4, 4, 8, 8), output_dim=8)
NETWORKS = {
    "insightface": IResNet(**SMALL, **VARIANTS["insightface"]),
    "cvlface": IResNet(**SMALL, **VARIANTS["cvlface"]),
    "mbf": InsightFaceMobileFaceNet(
        output_dim=8,
        stages=(
            (1, 8, 1, 2), (1, 8, 1, 1), (2, 16, 1, 2), (1, 16, 2, 1), (2, 16, 1, 2),
            (1, 16, 1, 1),
        ),
        stem_width=8,
        stem_groups=4,
        last_width=16,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def images():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 112, 112))
    return np.float32(pixels / 127.5 - 1).transpose(0, 2, 3, 1)


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_are_those_of_onnxruntime(name, images):
    variables = import_weights(NETWORKS[name], FILES / f"{name}_folded.onnx")
    found = quick_jit(NETWORKS[name].apply)(variables, images)
    want = np.load(FILES / "expected.npz")[name]
    np.testing.assert_allclose(found, want, atol=1e-5)


def test_without_folded_norms_the_weights_are_those_of_pytorch():
    found = load_state_dict(FILES / "insightface_unfolded.onnx")
    want = np.load(FILES / "insightface.npz")
    assert set(found) == {x for x in want.files if not x.endswith("tracked")}
    for name, array in found.items():
        np.testing.assert_array_equal(array, want[name], err_msg=name)


def test_a_folded_norm_adds_a_bias():
    found = load_state_dict(FILES / "insightface_folded.onnx")
    want = load_state_dict(FILES / "insightface.npz")
    layer = "layer1.0."
    scale = want[layer + "bn2.weight"] / np.sqrt(want[layer + "bn2.running_var"] + 1e-5)
    kernel = want[layer + "conv1.weight"] * scale[:, None, None, None]
    np.testing.assert_allclose(found[layer + "conv1.weight"], kernel, rtol=1e-5)
    assert (found[layer + "bn2.weight"] == 1).all()
    assert (found[layer + "bn2.running_var"] + np.float32(1e-5) == 1).all()
    assert not found[layer + "bn2.running_mean"].any()
    # A norm before a convolution with padding cannot be folded.
    np.testing.assert_array_equal(
        found[layer + "bn1.running_var"], want[layer + "bn1.running_var"]
    )


def model_of(name="insightface_folded"):
    return onnx.load(FILES / f"{name}.onnx", load_external_data=False)


def write(tmp_path, model):
    path = tmp_path / "w.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def refuse(path, message):
    with pytest.raises(ValueError, match=message) as error:
        load_state_dict(path)
    assert len(str(error.value)) < 1500
    assert "\n" not in str(error.value)


def test_a_norm_folded_into_the_linear_layer(tmp_path, images):
    """As simplifiers do; then the last norm adds the bias of the linear layer."""
    model = model_of()
    graph = model.graph
    norm, gemm = graph.node[-1], graph.node[-2]
    assert (norm.op_type, gemm.op_type) == ("BatchNormalization", "Gemm")
    tensors = {x.name: x for x in graph.initializer}
    scale, bias, mean, var = (
        numpy_helper.to_array(tensors[x]) for x in norm.input[1:5]
    )
    scale = scale / np.sqrt(var + 1e-5)
    kernel, offset = (numpy_helper.to_array(tensors[x]) for x in gemm.input[1:3])
    for name, array in (
        (gemm.input[1], kernel * scale[:, None]),
        (gemm.input[2], (offset - mean) * scale + bias),
    ):
        tensors[name].CopyFrom(numpy_helper.from_array(np.float32(array), name))
    gemm.output[0] = norm.output[0]
    graph.node.remove(norm)
    variables = import_weights(NETWORKS["insightface"], write(tmp_path, model))
    found = quick_jit(NETWORKS["insightface"].apply)(variables, images)
    want = np.load(FILES / "expected.npz")["insightface"]
    np.testing.assert_allclose(found, want, atol=1e-5)


def test_half_precision(tmp_path):
    model = model_of("insightface_unfolded")
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float32:
            half = numpy_helper.from_array(array.astype(np.float16), tensor.name)
            tensor.CopyFrom(half)
    found = load_state_dict(write(tmp_path, model))
    want = load_state_dict(FILES / "insightface.npz")
    assert found["fc.weight"].dtype == np.float32
    np.testing.assert_allclose(found["fc.weight"], want["fc.weight"], atol=1e-3)


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)  # as if it were not installed
    refuse(FILES / "mbf_folded.onnx", r"install the `onnx` extra \(pip install")


@pytest.mark.parametrize("at", [0, 10, 0.3, 0.7, 0.999])
def test_cut_files(tmp_path, at):
    data = (FILES / "mbf_folded.onnx").read_bytes()
    path = tmp_path / "w.onnx"
    path.write_bytes(data[: int(at * len(data)) if at < 1 else at])
    refuse(path, "cannot read .*w.onnx: it ")


def test_numbers_in_another_file(tmp_path):
    model = model_of()
    tensor = next(x for x in model.graph.initializer if x.name == "fc.weight")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"
    refuse(write(tmp_path, model), "'fc.weight' are in another file; save the model")


def test_numbers_that_do_not_fit_their_shape(tmp_path):
    model = model_of()
    tensor = next(x for x in model.graph.initializer if x.name == "fc.weight")
    tensor.dims[0] = 1 << 40
    refuse(write(tmp_path, model), "'fc.weight' has other numbers than its shape says")


def test_other_networks(tmp_path):
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 112, 112])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 512])],
    )
    model = helper.make_model(graph)
    refuse(write(tmp_path, model), "Relu stands where Gemm or MatMul should be; only")
    graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1]))
    model = helper.make_model(graph)
    refuse(write(tmp_path, model), "it has 1 inputs and 2 outputs, and a recognizer's")


def test_steps_of_preparation(tmp_path):
    model = model_of()
    graph = model.graph
    first = graph.node[0]
    node = helper.make_node("Sub", [first.input[0], "mean"], ["shifted"])
    first.input[0] = "shifted"
    graph.node.insert(0, node)
    graph.initializer.append(numpy_helper.from_array(np.float32(127.5), "mean"))
    message = "Sub stands where the image should be; .* without steps of preparation"
    refuse(write(tmp_path, model), message)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("strides", [3, 3], "a stride is not that of"),
        ("pads", [0, 0, 0, 0], "is not that of an iResNet"),
        ("dilations", [2, 2], "a convolution is dilated"),
        ("strides", [1, 2], "uneven strides"),
    ],
)
def test_another_geometry(tmp_path, field, value, message):
    model = model_of()
    node = [x for x in model.graph.node if x.op_type == "Conv"][2]
    next(x for x in node.attribute if x.name == field).ints[:] = value
    refuse(write(tmp_path, model), message)


def test_attributes_of_another_kind(tmp_path):
    model = model_of("insightface_unfolded")
    node = next(x for x in model.graph.node if x.op_type == "BatchNormalization")
    attribute = next(x for x in node.attribute if x.name == "epsilon")
    attribute.type = onnx.AttributeProto.GRAPH
    refuse(write(tmp_path, model), "its graph makes no sense")
    del node.input[3:]
    refuse(write(tmp_path, model), "its graph makes no sense|not enough values")


def test_a_graph_that_runs_in_a_circle(tmp_path):
    model = model_of()
    model.graph.node[-1].input[0] = model.graph.node[-1].output[0]
    refuse(write(tmp_path, model), "BatchNormalization stands where")
    node = helper.make_node("Identity", ["a"], ["a"])
    model.graph.node.append(node)
    model.graph.output[0].name = "a"
    refuse(write(tmp_path, model), "run in a circle")


def test_weights_of_another_network():
    message = "does not fit adaface_ir50; missing: input_layer.0.weight"
    with pytest.raises(ValueError, match=message) as error:
        import_weights("adaface_ir50", FILES / "insightface_folded.onnx")
    assert len(str(error.value)) < 1500


def test_the_file_says_the_widths_of_a_mobilefacenet(images):
    found = load_recognizer(f"insightface_w600k_mbf:{FILES / 'mbf_folded.onnx'}")
    assert found.module == NETWORKS["mbf"]
    assert found.license == "research only: trained on WebFace600K"
    with pytest.raises(ValueError, match="does not fit this InsightFaceMobile"):
        load_recognizer(f"insightface_w600k_mbf:{FILES / 'insightface_folded.onnx'}")
    want = np.load(FILES / "expected.npz")["mbf"]
    got = quick_jit(NETWORKS["mbf"].apply)(found.variables, images)
    np.testing.assert_allclose(got, want, atol=1e-5)
