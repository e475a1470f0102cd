import io
import pickle
import sys

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from kprpe_jax.weights.state_dict import load_state_dict

ARRAYS = {
    "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a.num_batches_tracked": np.array(7),
}


def assert_arrays(got):
    assert set(got) == set(ARRAYS)
    for name, want in ARRAYS.items():
        np.testing.assert_array_equal(got[name], want)
    assert got["a.weight"].dtype == np.float32


@pytest.mark.parametrize(
    "prefix", ["", "module.", "net.", "model.", "module.model.net."]
)
def test_common_prefixes_are_stripped(prefix):
    assert_arrays(load_state_dict({prefix + k: v for k, v in ARRAYS.items()}))


def test_a_prefix_of_some_names_stays():
    names = {"net.a": np.ones(1), "b": np.ones(1)}
    assert set(load_state_dict(names)) == set(names)
    assert set(load_state_dict({"ema.a": np.ones(1)}, prefixes=("ema.",))) == {"a"}


def test_containers_are_unwrapped():
    weights = {"net." + k: v for k, v in ARRAYS.items()}
    nested = {"epoch": 3, "state_dict": weights}
    assert_arrays(load_state_dict(nested))
    assert_arrays(load_state_dict({"model": {"state_dict": ARRAYS}}))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_floats_become_float32(dtype):
    got = load_state_dict({"a": np.ones(2, dtype), "b": jnp.ones(2, jnp.bfloat16)})
    assert {array.dtype for array in got.values()} == {np.dtype(np.float32)}


def test_npz_and_safetensors(tmp_path):
    np.savez(tmp_path / "w.npz", **ARRAYS)
    save_file(ARRAYS, tmp_path / "w.safetensors")
    assert_arrays(load_state_dict(tmp_path / "w.npz"))
    assert_arrays(load_state_dict(str(tmp_path / "w.safetensors")))


def test_torch_file(tmp_path):
    torch = pytest.importorskip("torch", reason="needs the torch extra")
    tensors = {f"module.{k}": torch.from_numpy(v) for k, v in ARRAYS.items()}
    for name in ("w.pt", "w.pth"):
        torch.save({"state_dict": tensors, "epoch": 3}, tmp_path / name)
        assert_arrays(load_state_dict(tmp_path / name))
    half = {k: v.bfloat16().requires_grad_() for k, v in tensors.items() if "we" in k}
    assert load_state_dict(half)["a.weight"].dtype == np.float32


class FakeTensor:
    """What a PyTorch tensor offers, for where PyTorch is not installed."""

    def __init__(self, array):
        self.array = array

    def detach(self):
        return self

    def cpu(self):
        return self

    def float(self):
        return FakeTensor(self.array.astype(np.float32))

    def is_floating_point(self):
        return np.issubdtype(self.array.dtype, np.floating)

    def numpy(self):
        return self.array


def test_tensors_in_a_mapping():
    assert_arrays(load_state_dict({k: FakeTensor(v) for k, v in ARRAYS.items()}))


class Bomb:
    """Pickled code that would run on load."""

    def __reduce__(self):
        return exec, ("import sys; sys.exploded = True",)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pt"])
def test_pickles_are_never_run(tmp_path, suffix):
    path = tmp_path / f"bomb{suffix}"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match=str(path)):
        load_state_dict(path)
    assert not hasattr(sys, "exploded")


def test_pickled_member_of_an_npz_is_never_run(tmp_path):
    np.savez(tmp_path / "bomb.npz", a=np.array([Bomb()], object))
    with pytest.raises(ValueError, match="cannot read .*bomb.npz as .npz weights"):
        load_state_dict(tmp_path / "bomb.npz")
    assert not hasattr(sys, "exploded")


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_truncated_files(tmp_path, suffix):
    path = tmp_path / f"w{suffix}"
    if suffix == ".npz":
        buffer = io.BytesIO()
        np.savez(buffer, **ARRAYS)
        data = buffer.getvalue()
    else:
        save_file(ARRAYS, path)
        data = path.read_bytes()
    for length in (0, 10, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match=f"cannot read .*w{suffix} as {suffix}"):
            load_state_dict(path)


def test_array_file_named_npz(tmp_path):
    with (tmp_path / "w.npz").open("wb") as file:
        np.save(file, np.ones(3))
    with pytest.raises(ValueError, match="cannot read .* as .npz weights"):
        load_state_dict(tmp_path / "w.npz")


def test_other_errors(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"w.h5: unknown file type '.h5'; use one of"):
        load_state_dict(tmp_path / "w.h5")
    with pytest.raises(ValueError, match="w.npz: there is no such file"):
        load_state_dict(tmp_path / "w.npz")
    with pytest.raises(ValueError, match="the mapping holds no arrays"):
        load_state_dict({})
    with pytest.raises(
        ValueError, match="map names to arrays; epoch, x hold something"
    ):
        load_state_dict({"epoch": 3, "a": np.ones(1), "x": "text"})
    (tmp_path / "w.pt").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "torch", None)  # as if it were not installed
    with pytest.raises(ValueError, match="install the `torch` extra"):
        load_state_dict(tmp_path / "w.pt")
