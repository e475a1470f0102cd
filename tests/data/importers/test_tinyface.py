"""A tiny set in TinyFace's form."""

import pytest

from kprpe_jax.data.importers.record import NO_IDENTITY
from kprpe_jax.data.importers.tinyface import PARTS, open_tinyface
from tests.data.importers.sources import face, read_all


@pytest.fixture
def folder(tmp_path):
    for name, files in {
        "Probe": ["2_1.jpg", "10_3.jpg", "x_1.jpg", "7.jpg"],
        "Gallery_Match": ["2_2.jpg", "10_1.jpg"],
        "Gallery_Distractor": ["d1.jpg", "5_x.jpg"],
    }.items():
        (tmp_path / "Testing_Set" / name).mkdir(parents=True)
        for number, file in enumerate(files):
            (tmp_path / "Testing_Set" / name / file).write_bytes(face(number))
    return tmp_path


@pytest.mark.parametrize("inner", ["", "Testing_Set"])
def test_identities_and_parts(folder, inner):
    source = open_tinyface(folder / inner)
    records, bad = read_all(source)
    assert [(r.key, r.identity, r.extra["part"]) for r in records] == [
        ("Probe/10_3.jpg", 10, "probe"),
        ("Probe/2_1.jpg", 2, "probe"),
        ("Gallery_Match/10_1.jpg", 10, "match"),
        ("Gallery_Match/2_2.jpg", 2, "match"),
        ("Gallery_Distractor/5_x.jpg", NO_IDENTITY, "distractor"),
        ("Gallery_Distractor/d1.jpg", NO_IDENTITY, "distractor"),
    ]
    assert records[1].image == face(0)
    assert [b[:2] for b in bad] == [
        ("Probe/7.jpg", "wrong label"),
        ("Probe/x_1.jpg", "wrong label"),
    ]
    assert source.count == 8
    assert read_all(source, 5)[0] == records[3:]
    assert source.tables["num_probes"] == 2


@pytest.mark.parametrize("name", PARTS)
def test_missing_and_empty_folders(folder, name):
    path = folder / "Testing_Set" / name
    path.rename(folder / "away")
    with pytest.raises(ValueError, match=f"{name} must be a folder .* no such folder"):
        open_tinyface(folder)
    path.mkdir()
    with pytest.raises(ValueError, match=f"{name} must be a folder .*got an empty one"):
        open_tinyface(folder)
