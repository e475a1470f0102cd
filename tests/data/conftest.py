"""Prepared data sets, written once per session and copied where they are damaged."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from kprpe_jax.data.prepare import prepare


@pytest.fixture(scope="session")
def digits_dir(tmp_path_factory) -> Path:
    """Data folder with the digits prepared in it; not to be changed."""
    path = tmp_path_factory.mktemp("data")
    prepare("digits", path)
    return path


@pytest.fixture
def idx_dir(tmp_path, rng) -> Path:
    """Folder with four small files of MNIST's form: 23 and 7 rows, half of them gz."""
    folder = tmp_path / "idx"
    folder.mkdir()
    for prefix, rows in (("train", 23), ("t10k", 7)):
        images = rng.integers(0, 256, size=(rows, 28, 28), dtype=np.uint8)
        images[:, :5] = 0
        labels = rng.integers(0, 10, size=rows, dtype=np.uint8)
        header = struct.pack(">4I", 0x803, rows, 28, 28)
        (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(
            gzip.compress(header + images.tobytes())
        )
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(
            struct.pack(">2I", 0x801, rows) + labels.tobytes()
        )
    return folder
