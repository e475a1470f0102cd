"""The real small set; pickles of every protocol; pickles that do something else."""

import itertools
import os
import pickle
import struct

import numpy as np
import pytest

from kprpe_jax.data.importers.decode import decode_rgb
from kprpe_jax.data.importers.verification_bin import (
    open_verification_bin,
    read_verification_bin,
)
from tests.data.importers.sources import SHARED, face, needs_shared, read_all

IMAGES = [face(i) for i in range(4)]


@needs_shared
def test_the_real_small_set():
    source = open_verification_bin(SHARED / "insightface" / "small_lfw.bin")
    records, bad = read_all(source)
    assert not bad
    assert [r.extra["pair"] for r in records] == [i // 2 for i in range(20)]
    assert source.tables["pair_same"].tolist() == [True] * 10
    assert {decode_rgb(r.image).shape for r in records} == {(112, 112, 3)}
    assert len({r.image for r in records}) > 10
    assert read_all(source, 18)[0] == records[18:]


@pytest.mark.parametrize(
    ("form", "protocol"),
    [
        (bytearray, 5),  # has no instruction of its own before
        *itertools.product([bytes, "array", "column"], range(6)),
    ],
)
def test_all_protocols_and_forms_of_bytes(tmp_path, form, protocol):
    arrays = [np.frombuffer(image, np.uint8) for image in IMAGES]
    if form == "column":
        arrays = [array[:, None].copy() for array in arrays]
    images = arrays if isinstance(form, str) else [form(image) for image in IMAGES]
    path = tmp_path / "set.bin"
    path.write_bytes(pickle.dumps((images, [True, False]), protocol))
    got, same = read_verification_bin(path)
    assert got == IMAGES
    assert same.tolist() == [True, False]


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    "same", [[np.True_, np.False_], np.array([True, False]), np.array([1, 0], np.uint8)]
)
def test_booleans_of_numpy(tmp_path, same, protocol):
    path = tmp_path / "set.bin"
    path.write_bytes(pickle.dumps((IMAGES, same), protocol))
    assert read_verification_bin(path)[1].tolist() == [True, False]


def test_python_2_wrote_strings_and_old_numpy_names(tmp_path):
    strings = b"".join(b"U" + bytes([len(x)]) + x for x in (b"ab", b"\xff\xd8"))
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
        b"(I1\n(I3\ntcnumpy\ndtype\n(S'u1'\nI0\nI1\ntR(I3\nS'|'\nNNNI-1\nI-1\nI0\ntb"
        b"I00\nS'abc'\ntb"
    )
    path = tmp_path / "set.bin"
    content = b"((" + strings + array + array + b"l(I01\nI00\nlt."
    path.write_bytes(content)
    for module in (b"numpy.core.", b"numpy._core."):
        path.write_bytes(content.replace(b"numpy.core.", module))
        images, same = read_verification_bin(path)
        assert images == [b"ab", b"\xff\xd8", b"abc", b"abc"]
        assert same.tolist() == [True, False]


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_code_is_refused_by_name_and_not_run(tmp_path, protocol):
    path, proof = tmp_path / "set.bin", tmp_path / "proof"
    call = Call(os.system, f"touch {proof}")
    path.write_bytes(pickle.dumps(([call, *IMAGES[:3]], [True, False]), protocol))
    with pytest.raises(ValueError, match=r"got the name (posix|nt)\.system;") as e:
        read_verification_bin(path)
    assert "\n" not in str(e.value)
    assert not proof.exists()
    pickle.loads(path.read_bytes())  # the same file does harm elsewhere
    assert proof.exists()


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (Call(eval, "1"), r"the name (__builtin__|builtins)\.eval"),
        (Call(np.load, "x"), r"the name numpy\.load"),
        (np.float32(3), "an array of another type than uint8, bool"),
        (np.zeros(3, np.float32), "an array of another type than uint8"),
        (np.array([None]), "an array of another type than uint8"),
        ({}, "the instruction EMPTY_DICT"),
        ({1}, r"the (instruction EMPTY_SET|name __builtin__\.set)"),
        (1.5, "the instruction BINFLOAT"),
        (1 << 4000, "the instruction LONG4"),
    ],
)
def test_everything_else_is_refused_by_name(tmp_path, value, match):
    path = tmp_path / "set.bin"
    for protocol in (2, 4):
        content = pickle.dumps(([*IMAGES[:3], value], [True, False]), protocol)
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"got {match}"):
            read_verification_bin(path)


def bomb() -> bytes:
    """A shape of nested lists: few bytes that would be 10**12 when walked."""
    nested = b"(I1\nI1\nI1\nI1\nI1\nI1\nI1\nI1\nI1\nI1\nlp9\n0"
    for i in range(10, 22):
        nested += b"(" + b"g%d\n" % (i - 1) * 10 + b"lp%d\n0" % i
    nested += b"(g21\nI1000000000000\nt"
    dtype = b"cnumpy\ndtype\n(S'u1'\nI0\nI1\ntR"
    return (
        b"(cnumpy.core.multiarray\n_reconstruct\n(tR(I1\n"
        + nested
        + dtype
        + (b"I00\nS'abc'\ntb(lt.")
    )


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"\x80\x04]r\xff\xff\xff\x7f.", "a memo of 2147483647 objects"),
        (b"\x80\x04]p2000000000\n.", "got "),
        (b"\x80\x05\x96" + struct.pack("<Q", 1 << 60) + b".", "got "),
        (b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60) + b".", "got "),
        (bomb(), "an array whose shape, type and bytes do not fit"),
        (b"(cnumpy\nndarray\n(tR(I1\n(I9\nttR.", "got "),
        (b"(c_codecs\nencode\n(Vx\nVzip\ntRt.", "with another encoding than latin1"),
        (b"", "got "),
        (b"\xff\xd8\xff", "got "),
    ],
)
def test_bombs_and_rubbish(tmp_path, content, match):
    path = tmp_path / "set.bin"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=match) as e:
        read_verification_bin(path)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (IMAGES, "must hold a pair"),
        ((IMAGES, b"no"), "must hold two lists; got list and bytes"),
        ((IMAGES, [True]), "got 4 images, 1 booleans"),
        (([], []), "got 0 images"),
        (([*IMAGES[:3], "text"], [True, False]), "and a str"),
        ((IMAGES, [True, None]), "and a NoneType"),
        ((IMAGES, [2, 0]), "and a label 2"),
    ],
)
def test_other_contents(tmp_path, value, match):
    path = tmp_path / "set.bin"
    path.write_bytes(pickle.dumps(value))
    with pytest.raises(ValueError, match=match):
        read_verification_bin(path)


def test_cut_and_absent(tmp_path):
    path = tmp_path / "set.bin"
    with pytest.raises(ValueError, match="got no such file"):
        read_verification_bin(path)
    content = pickle.dumps((IMAGES, [True, False]))
    for end in range(0, len(content), 97):
        path.write_bytes(content[:end])
        with pytest.raises(ValueError, match="must be a whole pickle"):
            read_verification_bin(path)
