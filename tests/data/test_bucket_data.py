"""Data sets that lie in a bucket."""

import pathlib

import numpy as np
import pytest

from kprpe_jax.core import paths
from kprpe_jax.data.prepare import prepare
from kprpe_jax.data.store import open_split
from tests.bucket_servers import BUCKET, use

DATA = f"gs://{BUCKET}/data"


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A folder of data sets, which lies in a bucket, too."""
    local = tmp_path_factory.mktemp("data")
    prepare("digits", local)
    with use("gs"):
        for file in pathlib.Path(local).rglob("*"):
            if file.is_file():
                name = f"{DATA}/{file.relative_to(local)}"
                paths.write_bytes(name, file.read_bytes())
        yield local


def test_rows_in_a_bucket_are_those_on_a_disk(digits):
    there, here = (open_split(x, "digits", "train[:40]") for x in (DATA, digits))
    assert len(there) == len(here) == 40
    for a, b in zip(there.__getitems__([0, 39, 7]), here.__getitems__([0, 39, 7]),
                    strict=True):  # fmt: skip
        for name in b:
            np.testing.assert_array_equal(a[name], b[name])
    assert prepare("digits", DATA).startswith(DATA)


def test_faults(digits):
    with pytest.raises(ValueError, match="did you mean 'digits'"):
        open_split(DATA, "digit", "train")
    with pytest.raises(ValueError, match="written to local folders alone"):
        prepare("digits", f"gs://{BUCKET}/other")
    with pytest.raises(ValueError, match="mount-s3"):
        open_split("s3://faces/data", "digits", "train")
    paths.write_bytes(f"{DATA}/digits/1.0.0/digits-test.array_record-00000-of-00001",
                      b"short")  # fmt: skip
    with pytest.raises(ValueError, match="truncated or corrupt.*copy the data set"):
        open_split(DATA, "digits", "test")
