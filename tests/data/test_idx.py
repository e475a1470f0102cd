"""IDX files written here byte by byte, whole and damaged."""

import gzip
import struct

import numpy as np
import pytest

from kprpe_jax.data.idx import read_idx


def idx_bytes(array: np.ndarray, *, kind: int = 8) -> bytes:
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes([0, 0, kind, array.ndim]) + sizes + array.tobytes()


@pytest.fixture
def images(rng) -> np.ndarray:
    return rng.integers(0, 256, size=(300, 4, 5), dtype=np.uint8)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_reads_plain_and_gzip_whatever_the_name(tmp_path, images, pack):
    path = tmp_path / "no-extension"
    path.write_bytes(pack(idx_bytes(images)))
    np.testing.assert_array_equal(read_idx(path, ndim=3), images)
    path.write_bytes(pack(idx_bytes(images[:, 0, 0])))
    np.testing.assert_array_equal(read_idx(path, ndim=1), images[:, 0, 0])


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (lambda b: b[:-1], r"bad.*is truncated: .*300 x 4 x 5 = 6000 values; got 5999"),
        (lambda b: b + b"x", r"bad.*is too long: .*6000 values; got 6001"),
        (lambda b: b[:9], r"bad.*is truncated: the header needs 16 bytes; got 9"),
        (lambda b: b"", r"bad.*is not an IDX file.*nothing"),
        (lambda b: b"PNG" + b, r"bad.*is not an IDX file.*0x504e4700"),
        (lambda b: b"\0\0\x0d" + b[3:], r"bad.*magic number 2051 .*; got 3331"),
        (lambda b: b[:3] + b"\x01" + b[4:], r"bad.*magic number 2051 .*; got 2049"),
        (lambda b: gzip.compress(b)[:-20], r"bad.*is a corrupt or truncated gzip"),
        (lambda b: gzip.compress(b)[:200] + b"xx", r"bad.*corrupt or truncated gzip"),
        (lambda b: gzip.compress(b)[:-6] + b"xxxxxx", r"bad.*corrupt or truncated gz"),
    ],
)
def test_damage_is_one_sentence_with_the_file_name(tmp_path, images, damage, match):
    path = tmp_path / "bad"
    path.write_bytes(damage(idx_bytes(images)))
    with pytest.raises(ValueError, match=match) as e:
        read_idx(path, ndim=3)
    assert "\n" not in str(e.value)


def test_missing_file(tmp_path):
    with pytest.raises(ValueError, match="nowhere is not a file"):
        read_idx(tmp_path / "nowhere", ndim=3)
