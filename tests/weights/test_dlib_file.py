"""dlib's serialization: a made-up network, the published one, and bad files."""

import jax
import numpy as np
import pytest

from kprpe_jax.weights import dlib_file, export_weights, import_weights
from kprpe_jax.weights.dlib_file import read_dlib_file
from tests.weights.dlib_writer import TINY, dlib_bytes, tiny_file


@pytest.fixture(scope="module")
def tiny():
    return tiny_file()


@pytest.fixture
def write(tmp_path):
    def write(data):
        path = tmp_path / "some.dat"
        path.write_bytes(data)
        return path

    return write


def test_a_file_there_and_back(tiny, write):
    variables, data = tiny
    arrays = read_dlib_file(write(data), TINY)
    assert list(arrays)[:3] == ["conv0.weight", "conv0.bias", "affine0.weight"]
    assert arrays["conv0.weight"].shape == (2, 3, 7, 7)
    again = import_weights(TINY, arrays)
    jax.tree.map(np.testing.assert_array_equal, again, variables)
    assert set(arrays) == set(export_weights(TINY, variables))


def test_a_file_that_is_cut_anywhere(tiny, write):
    _, data = tiny
    for end in (*range(0, 400, 7), *range(400, len(data), 501), len(data) - 1):
        with pytest.raises(ValueError, match=r"as dlib writes it; .*[^.]\.$"):
            read_dlib_file(write(data[:end]), TINY)


def test_bytes_that_were_changed(tiny, write):
    """Each byte of the head and some behind: refused, or a number of the weights."""
    _, data = tiny
    rng = np.random.default_rng(0)
    for at in (*range(0, 300), *rng.integers(300, len(data), 200)):
        changed = bytearray(data)
        changed[at] ^= int(rng.integers(1, 256))
        try:
            arrays = read_dlib_file(write(bytes(changed)), TINY)
        except ValueError as error:
            assert str(error).count("\n") == 0  # noqa: PT017
            assert len(str(error)) < 400  # noqa: PT017
        else:
            assert all(np.isfinite(x).all() for x in arrays.values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x + b"\0", "1 bytes follow the last layer"),
        (lambda x: b"", "ends early, at byte 0"),
        (lambda x: b"PK\x03\x04" + x, "begins no number"),
        (lambda x: x.replace(b"loss_metric_2", b"loss_mmod_pyr"), "loss_mmod_pyr"),
        (lambda x: x.replace(b"\x05con_4", b"\x05con_7"), "con_4 must be there, got"),
        (lambda x: x.replace(b"\x01\x57\x01\x57", b"\x01\x58\x01\x57"), "must be 87"),
    ],
)
def test_bad_files(tiny, write, change, message):
    with pytest.raises(ValueError, match=message) as error:
        read_dlib_file(write(change(tiny[1])), TINY)
    assert "some.dat must be dlib's face ResNet" in str(error.value)
    assert len(str(error.value)) < 400


def test_numbers_that_are_not_finite(tiny, write):
    variables, _ = tiny
    bad = jax.tree.map(np.copy, variables)
    bad["params"]["head"]["kernel"][0, 0] = np.nan
    with pytest.raises(ValueError, match="weights must be finite"):
        read_dlib_file(write(dlib_bytes(TINY, bad)), TINY)


def test_a_file_that_is_too_large_is_not_read(write, monkeypatch):
    monkeypatch.setattr(dlib_file, "_LARGEST", 1 << 20)
    path = write(b"\0" * (3 << 20))
    with pytest.raises(ValueError, match="got 3 MB, which is too large"):
        read_dlib_file(path)


def test_another_size_than_the_published(tiny, write):
    with pytest.raises(ValueError, match="version of a layer must be"):
        import_weights("dlib_resnet_v1", write(tiny[1]))
