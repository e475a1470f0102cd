"""Files damaged at random: an answer, or one sentence; never another error.

`make fuzz` runs this for twenty minutes with seeds of its own and prints them; the
everyday tests take few examples of a fixed seed. A failure prints the bytes' changes,
which hypothesis has made as small as it can.
"""

import os
import resource
import warnings

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.samples import SAMPLES

EXAMPLES = int(os.environ.get("KPRPE_FUZZ_EXAMPLES", "25"))
_MOST_MEMORY = 1 << 30  # bytes that a reader may add to the peak
_WORDS = st.sampled_from(
    [b"", b"\0", b"\xff" * 4, b"\xff\xff\xff\x7f", b"nan", b"-1", b"1e999", b"\n", b",",
     b'"', b"../", b"\0\0\0\x80", b"\xc3", b"999999999999999999999"]
)  # fmt: skip
# (place as a share of the file, bytes that go, bytes that come)
_CHANGES = st.lists(
    st.tuples(
        st.floats(0, 1),
        st.integers(0, 64) | st.just(1 << 20),
        _WORDS | st.binary(max_size=9),
    ),
    min_size=1,
    max_size=4,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("files")


def damage(content: bytes, changes: list[tuple[float, int, bytes]]) -> bytes:
    for share, gone, new in changes:
        place = round(share * len(content))
        content = content[:place] + new + content[place + gone :]
    return content


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_damaged_files_are_read_or_refused_in_one_sentence(sample, folder):
    place = folder / sample.name.replace(".", "_")
    place.mkdir()
    path = place / sample.name
    sample.write(path)
    sample.read(path)  # the undamaged one
    content = path.read_bytes()

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=EXAMPLES <= 25,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(_CHANGES)
    def check(changes):
        path.write_bytes(damage(content, changes))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        refusal = None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                sample.read(path)
            except ValueError as error:
                refusal = error
        if refusal is not None:
            assert not isinstance(refusal, UnicodeError)
            assert str(refusal)
            assert "\n" not in str(refusal)
            assert len(str(refusal)) < 1500
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert (after - before) * 1024 < _MOST_MEMORY

    check()
