"""Templates of video frames: a CSV and frames by number."""

import pytest

from kprpe_jax.data.importers.video_templates import (
    open_video_templates,
    read_video_templates,
)
from tests.data.importers.sources import face, read_all

HEADER = "template,subject,media,frames\n"


@pytest.fixture
def path(tmp_path):
    for media, names in {
        "v1": ["1.jpg", "000002.jpg", "3.png"],
        "v2/a": ["7.jpg"],
    }.items():
        (tmp_path / media).mkdir(parents=True)
        for name in [*names, "notes.txt"]:
            number = int(name.split(".")[0]) if name != "notes.txt" else 0
            (tmp_path / media / name).write_bytes(face(number))
    path = tmp_path / "templates.csv"
    path.write_text(HEADER + "10,3,v1,1-2;3\n10,3,v2/a,7\n11,4,v1,2\n")
    return path


def test_frames_of_templates(path):
    rows = read_video_templates(path)
    assert rows.template.tolist() == [10, 10, 10, 10, 11]
    assert rows.subject.tolist() == [3, 3, 3, 3, 4]
    assert rows.media == ["v1", "v1", "v1", "v2/a", "v1"]
    assert rows.frame.tolist() == [1, 2, 3, 7, 2]
    source = open_video_templates(path)
    records, bad = read_all(source)
    assert not bad
    assert [r.key for r in records] == [
        *("10/v1/1", "10/v1/2", "10/v1/3", "10/v2/a/7", "11/v1/2")
    ]
    assert [r.image for r in records] == [face(i) for i in (1, 2, 3, 7, 2)]
    assert [r.identity for r in records] == [3, 3, 3, 3, 4]
    assert records[3].extra == {"template": 10, "media": "v2/a", "frame": 7}
    assert read_all(source, 3)[0] == records[3:]


def test_missing_and_repeated_frames(path):
    path.write_text(HEADER + "10,3,v1,1-4\n10,3,v3,1\n10,3,v1,3\n")
    source = open_video_templates(path)
    assert [b[:2] for b in read_all(source)[1]] == [
        ("10/v1/4", "missing image"),
        ("10/v3/1", "missing image"),
        ("10/v1/3", "duplicate id"),
    ]
    assert next(source.read(5)).kind == "duplicate id"


def test_the_csv_is_remembered_whatever_can_be_read(path):
    path.write_text(HEADER + "10,3,v1,1\n12,5,v9,1-3\n11,4,v1,2\n")
    assert open_video_templates(path).tables["video_template"].tolist() == [10, 11, 12]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("template,subject\n", "line 1 of .*'template,subject,media,frames'"),
        ("", "line 2 of .*got 'nothing'"),
        (HEADER, "line 2 of .*got 'nothing'"),
        (HEADER + "1,2,v\n", "line 2 of .*got '1,2,v'"),
        (HEADER + "1,2,v,3\n1,2,v,x\n", "line 3 of .*got '1,2,v,x'"),
        (HEADER + "1,2,v,5-3\n", "line 2 of"),
        (HEADER + "1,2,v,1-99999999999\n", "line 2 of"),
        (HEADER + "1,2,v,1-2-3\n", "line 2 of"),
        (HEADER + "1,2,../v,1\n", "line 2 of"),
        (HEADER + "1,2,/v,1\n", "line 2 of"),
        (HEADER + "1,2,v,1\n1,3,v,2\n", "line 3 of .*of subject 2, as template 1"),
    ],
)
def test_malformed_lines_are_named(tmp_path, text, match):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ValueError, match=match) as e:
        read_video_templates(tmp_path / "t.csv")
    assert "\n" not in str(e.value)
    with pytest.raises(ValueError, match="must be a file; got no such file"):
        read_video_templates(tmp_path / "u.csv")
