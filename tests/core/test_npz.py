"""NumPy archives: what NumPy writes, and what strangers may send."""

import io
import struct
import sys
import zipfile

import numpy as np
import pytest

from kprpe_jax.core.npz import NpzReader, read_npz

ARRAYS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "turned": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "empty": np.zeros((0, 3), np.float32),
    "number": np.array(7),
    "names": np.array(["ann", "b"]),
    "no_letters": np.array(["", ""], "U0"),
    "flags": np.array([True, False]),
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_writes(tmp_path, save):
    save(tmp_path / "a.npz", **ARRAYS)
    found = read_npz(tmp_path / "a.npz")
    assert list(found) == list(ARRAYS)
    with pytest.raises(KeyError, match="the archive has no array other"):
        found["other"]
    for name, array in found.items():
        np.testing.assert_array_equal(array, ARRAYS[name])
        assert array.dtype == ARRAYS[name].dtype
        assert array.flags.writeable


def refuse(path, data, message):
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message) as error:
        read_npz(path)
    assert "\n" not in str(error.value)


def archive_of(members, **options):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", **options) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_bombs(tmp_path):
    path = tmp_path / "a.npz"
    zeros = npy(np.zeros(100 << 20, np.uint8))
    deflated = archive_of({"a.npy": zeros}, compression=zipfile.ZIP_DEFLATED)
    assert len(deflated) < 1 << 20
    refuse(path, deflated, "it would fill 100 MiB of memory")
    # A shape of 4 TiB before six numbers.
    header = npy(np.zeros((1, 6), np.float32)).replace(
        b"(1, 6), }" + b" " * 12, b"(999999999999, 6), }" + b" "
    )
    refuse(path, archive_of({"a.npy": header}), "other numbers than its shape says")


class Bomb:
    """Pickled code that would run on load."""

    def __reduce__(self):
        return exec, ("import sys; sys.exploded = True",)


def test_code_is_not_run(tmp_path):
    np.savez(tmp_path / "b.npz", a=np.array([Bomb()], object))
    data = (tmp_path / "b.npz").read_bytes()
    refuse(tmp_path / "a.npz", data, "it holds Python objects")
    assert not hasattr(sys, "exploded")


def test_damage(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, **ARRAYS)
    data = path.read_bytes()
    for length in (0, 10, len(data) // 2, len(data) - 1):
        refuse(path, data[:length], None)
    # The compression of the first member: 8 = deflated, here 99 in both headers.
    broken = bytearray(data)
    broken[8:10] = struct.pack("<H", 99)
    start = data.index(b"PK\x01\x02")
    broken[start + 10 : start + 12] = struct.pack("<H", 99)
    refuse(path, bytes(broken), "compression")
    flipped = bytearray(data)
    flipped[60] ^= 255
    refuse(path, bytes(flipped), None)
    encrypted = bytearray(data)
    encrypted[6] |= 1
    encrypted[start + 8] |= 1
    refuse(path, bytes(encrypted), "encrypted")
    refuse(path, archive_of({"a.npy": b"no array"}), "magic")
    refuse(path, archive_of({"a.npy": b"\x93NUMPY\x03\x00"}), "has the format 3.0")
    with pytest.raises(ValueError, match="No such file"):
        read_npz(tmp_path / "none.npz")


def test_arrays_are_read_one_by_one(tmp_path):
    """A large one does not stand in the way of the others."""
    path = tmp_path / "a.npz"
    large = npy(np.zeros(100 << 20, np.uint8))
    members = {"large.npy": large, "small.npy": npy(np.arange(3))}
    path.write_bytes(archive_of(members, compression=zipfile.ZIP_DEFLATED))
    reader = NpzReader(path)
    assert "small" in reader
    assert "other" not in reader
    assert reader.read("small").tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="it would fill 100 MiB of memory"):
        reader.read("large")
    with pytest.raises(KeyError, match="the archive has no array other"):
        reader.read("other")
