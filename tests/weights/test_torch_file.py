"""PyTorch's files without PyTorch: real ones, and what strangers may send."""

import io
import pathlib
import pickle
import sys
import zipfile

import numpy as np
import pytest

from kprpe_jax.weights.state_dict import load_state_dict, select_part
from kprpe_jax.weights.torch_file import Unknown, read_torch_file

FILES = pathlib.Path(__file__).parents[1] / "fixtures" / "torch"


@pytest.mark.parametrize("name", ["plain.pt", "old.pt"])
def test_tensors_of_all_types_and_strides(monkeypatch, name):
    monkeypatch.setitem(sys.modules, "torch", None)  # as if it were not installed
    found, want = load_state_dict(FILES / name), np.load(FILES / "plain.npz")
    assert list(found) == want.files
    for name in want.files:
        np.testing.assert_array_equal(found[name], want[name])
        assert found[name].dtype == want[name].dtype


def test_a_checkpoint_of_lightning():
    found, want = read_torch_file(FILES / "lightning.ckpt"), FILES / "lightning.npz"
    assert found["hyper_parameters"] == Unknown("__main__.Options")
    assert found["optimizer_states"][0]["param_groups"] == [{"lr": 0.1}]
    arrays, want = load_state_dict(FILES / "lightning.ckpt"), np.load(want)
    names = ["0.weight", "0.bias", "1.weight", "1.bias"]
    part, aside = select_part(arrays, lambda: names)
    assert aside == ["head.kernel"]
    assert set(part) == set(want.files) - {"head.kernel"}
    for name, array in part.items():
        np.testing.assert_array_equal(array, want[name])


def test_the_part_with_most_of_the_names():
    arrays = {
        "model.net.a": 1, "model.net.b": 2, "ema.a": 3, "backbone.a": 4, "a": 5,
    }  # fmt: skip
    torn = {"net.a": 1, "net.b": 2, "c": 3}  # one network, in two places
    assert select_part(torn, lambda: "abc") == (torn, [])
    part, aside = select_part(arrays, lambda: "ab")
    assert (part, aside) == ({"a": 1, "b": 2}, ["ema.a", "backbone.a", "a"])
    assert select_part(arrays, lambda: "xy") == (arrays, [])
    plain = {"a": 1, "head.b": 2}
    assert select_part(plain, lambda: pytest.fail("asked")) == (plain, [])


def members(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(path, contents, **options):
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    return path


class Bomb:
    """Pickled code that would run on load."""

    def __reduce__(self):
        return exec, ("import sys; sys.exploded = True",)


def test_code_is_data(tmp_path):
    contents = {"w/data.pkl": pickle.dumps({"a": Bomb()}, 2)}
    found = read_torch_file(write(tmp_path / "w.pt", contents))
    assert found == {"a": Unknown("")} or "exec" in found["a"].name
    with pytest.raises(ValueError, match="a hold something else"):
        load_state_dict(tmp_path / "w.pt")
    assert not hasattr(sys, "exploded")


@pytest.mark.parametrize("at", [0.01, 0.2, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("name", ["plain.pt", "old.pt"])
def test_truncated(tmp_path, at, name, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # as if it were not installed
    data = (FILES / name).read_bytes()
    path = tmp_path / "w.pt"
    path.write_bytes(data[: int(at * len(data))])
    with pytest.raises(ValueError, match=r"w\.pt"):
        load_state_dict(path)


def test_damaged_numbers(tmp_path):
    data = bytearray((FILES / "plain.pt").read_bytes())
    with zipfile.ZipFile(io.BytesIO(bytes(data))) as archive:
        info = archive.getinfo("plain/data/0")
    start = info.header_offset + 30 + len(info.filename)
    data[start + 80] ^= 255
    (tmp_path / "w.pt").write_bytes(bytes(data))
    with pytest.raises(ValueError, match="cannot read .*w.pt as .pt weights"):
        load_state_dict(tmp_path / "w.pt")


def refuse(tmp_path, contents, message, **options):
    path = write(tmp_path / "w.pt", contents, **options)
    with pytest.raises(ValueError, match=message) as error:
        load_state_dict(path)
    assert len(str(error.value)) < 1500


def test_bombs(tmp_path):
    contents = members(FILES / "plain.pt")
    refuse(tmp_path, contents, "is compressed", compression=zipfile.ZIP_DEFLATED)
    pkl = contents["plain/data.pkl"]
    # The first tensor is [4, 6]: K\x04K\x06 in the description.
    assert b"K\x04K\x06" in pkl
    large = pkl.replace(b"K\x04K\x06", b"K\xffK\xff", 1)
    refuse(tmp_path, {**contents, "plain/data.pkl": large}, "more numbers than")
    flat = pkl.replace(b"K\x06K\x01", b"K\x00K\x00")  # strides of zero
    wide = flat.replace(b"K\x04K\x06", b"K\xffK\xff", 1)
    refuse(tmp_path, {**contents, "plain/data.pkl": wide}, "more numbers than")
    short = {**contents, "plain/data/0": b"12345678"}
    refuse(tmp_path, short, "more numbers than")
    del contents["plain/data/0"]
    refuse(tmp_path, contents, "makes no sense")


@pytest.mark.parametrize(
    "description",
    [b"", b"\x80\x02.", b"\x80\x02}q\x00", b"\x80\x02(e.", b"(" * 50 + b".", b"h\x07."],
)
def test_descriptions_that_make_no_sense(tmp_path, description):
    refuse(tmp_path, {"w/data.pkl": description}, r"w\.pt")


def test_keys_of_no_text_cost_nothing(tmp_path):
    """A tuple of tuples, 40 deep, would take 2^40 steps as a key."""
    nested = b")" + b"2\x86" * 60  # DUP, TUPLE2
    description = b"\x80\x02}" + nested + b"K\x01s."
    path = write(tmp_path / "w.pt", {"w/data.pkl": description})
    assert read_torch_file(path) == {}


def test_an_archive_on_several_disks(tmp_path):
    data = bytearray((FILES / "plain.pt").read_bytes())
    end = data.rindex(b"PK\x05\x06")
    locator = b"PK\x06\x07" + (1).to_bytes(4, "little") + bytes(8) + b"\x02\0\0\0"
    (tmp_path / "w.pt").write_bytes(data[:end] + locator + data[end:])
    with pytest.raises(ValueError, match="multiple disks|not a zip file"):
        load_state_dict(tmp_path / "w.pt")


def test_no_archive_of_pytorch(tmp_path):
    refuse(tmp_path, {"w/other": b"x"}, "it holds no data.pkl")


def test_the_form_before_version_1_6(tmp_path):
    data = (FILES / "old.pt").read_bytes()
    path = tmp_path / "w.pt"

    def refuse_bytes(changed, message):
        path.write_bytes(changed)
        with pytest.raises(ValueError, match=message) as error:
            load_state_dict(path)
        assert len(str(error.value)) < 1500

    refuse_bytes(data + b"x", "it does not end with its last storage")
    refuse_bytes(data.replace(b"M\xe9\x03.", b"M\xe8\x03.", 1), "has the version 1000")
    big = data.replace(b"little_endianq\x02\x88", b"little_endianq\x02\x89", 1)
    assert big != data
    refuse_bytes(big, "which is not read")
    many = data.replace((24).to_bytes(8, "little"), (1 << 60).to_bytes(8, "little"), 1)
    assert many != data
    refuse_bytes(many, "a storage has more numbers than the file")
    code = data.replace(b"ctorch._utils\n_rebuild_tensor_v2", b"cos\nsystem", 1)
    assert code != data
    refuse_bytes(code, "hold something else")
