"""TensorFlow Lite's flat buffers: a made-up model, and what strangers may send."""

import struct

import numpy as np
import pytest

from kprpe_jax.weights import tflite_file
from kprpe_jax.weights.state_dict import load_state_dict
from kprpe_jax.weights.tflite_file import read_tflite_file
from tests.weights.tflite_writer import FLOAT16, FLOAT32, TENSORS, Builder, model


@pytest.fixture
def write(tmp_path):
    def write(data):
        path = tmp_path / "some.tflite"
        path.write_bytes(data)
        return path

    return write


def test_weights_by_name(write):
    found = load_state_dict(write(model(TENSORS)))
    assert list(found) == ["conv2d/Kernel", "conv2d/Bias"]
    for name, array in TENSORS[:2]:
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == np.float32


def test_the_schema_reads_what_is_written_here(write):
    tflite = pytest.importorskip("tflite", reason="the schema is not installed")
    graph = tflite.Model.GetRootAsModel(model(TENSORS), 0).Subgraphs(0)
    names = [graph.Tensors(i).Name().decode() for i in range(graph.TensorsLength())]
    assert names == [name for name, _ in TENSORS]


def test_a_file_that_is_cut_anywhere(write):
    data = model(TENSORS)
    for end in range(len(data)):
        try:
            found = read_tflite_file(write(data[:end]))
        except ValueError as error:
            assert "some.tflite must be a whole TensorFlow Lite model" in str(error)  # noqa: PT017
        else:  # what is left out was padding
            assert len(found) == 2
            assert end > len(data) - 4


def test_bytes_that_were_changed(write):
    data, rng = model(TENSORS), np.random.default_rng(0)
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= int(rng.integers(1, 256))
        try:
            found = read_tflite_file(write(bytes(changed)))
        except ValueError as error:
            assert str(error).count("\n") == 0  # noqa: PT017
            assert len(str(error)) < 600  # noqa: PT017
        else:
            assert sum(x.nbytes for x in found.values()) <= 2 * len(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "got another file"),
        (b"\x1c\0\0\0ABCD" + b"\0" * 40, "got another file"),
        (b"\xff\xff\xff\xffTFL3" + b"\0" * 40, "an offset leads out of it"),
        (model([]), "it holds no weights"),
        (model(TENSORS[:1] * 2), "two tensors are named 'conv2d/Kernel'"),
        (model([("a", np.float32([1, np.nan]))]), "'a' has weights that are not fin"),
        (model(TENSORS, {"Paddings": FLOAT16}), "must have 16 bytes, got 32"),
        (model([("a" * 300, np.zeros(3, np.float32))]), "at most 256 may be"),
    ],
)
def test_bad_files(write, data, message):
    with pytest.raises(ValueError, match=message):
        read_tflite_file(write(data))


def test_tensors_that_share_their_values_many_times(write):
    """A small file that would fill the memory."""
    out = Builder()
    data = out.vector(b"\0" * 4000, 4000)
    shape = out.vector(struct.pack("<i", 1000), 1)
    graph = []
    for number in range(200):
        text = out.vector(b"%03d\0" % number, 3)
        graph.append(out.table([shape], FLOAT32, 0, [text]))
    graph = out.table([out.offsets(graph)])
    graphs, stored = out.offsets([graph]), out.offsets([out.table([data])])
    root = out.table(3, None, [graphs], None, [stored])
    start = struct.pack("<I", 8 + out.size - root) + b"TFL3"
    with pytest.raises(ValueError, match="its tensors hold more than the file"):
        read_tflite_file(write(start + b"".join(out.parts)))


def test_a_file_that_is_too_large_is_not_read(write, monkeypatch):
    monkeypatch.setattr(tflite_file, "_LARGEST", 1 << 20)
    with pytest.raises(ValueError, match="got 3 MB, which is too large"):
        read_tflite_file(write(b"\0" * (3 << 20)))
