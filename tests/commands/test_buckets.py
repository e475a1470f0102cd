"""Paths in buckets: where they are refused, before a folder `gs:` is made of them."""

import pytest

from kprpe_jax.commands import buckets
from kprpe_jax.commands.main import main


@pytest.mark.parametrize(
    ("arguments", "named", "reason"),
    [
        (
            "train --config=digits --workdir=r --config.data.dir=s3://b/d",
            "--config.data.dir s3://b/d",
            "ArrayRecord reads",
        ),
        ("train --config=gs://b/c.py --workdir=r", "--config gs://b/c.py", "Python"),
        ("verify https://a.org/a.jpg b.jpg", "https://a.org/a.jpg", "gs:// and s3://"),
        ("train --config=digits --workdir=hdfs://b/r", "hdfs://b/r", "gs:// and s3://"),
        ("convert gs://bucket/run", "path gs://bucket/run", "locally alone"),
        ("gallery show --gallery=s3://b/g", "--gallery s3://b/g", "SQLite"),
        ("embed --photos s3://b/p --output=f.npz", "--photos s3://b/p", "file system"),
    ],
)
def test_refused(arguments, named, reason, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(arguments.split())
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert named in error
    assert reason in error
    assert "mount the bucket" in error
    assert not list(tmp_path.iterdir())


def test_folders_of_programs_are_written_locally(monkeypatch, capsys):
    monkeypatch.setattr(buckets, "check_bucket", lambda path, option: None)
    with pytest.raises(SystemExit):
        main("export --model m --format stablehlo --output gs://b/programs".split())
    assert "must be local with --format stablehlo" in capsys.readouterr().err


def test_taken(monkeypatch):
    asked = []
    monkeypatch.setattr(
        buckets, "check_bucket", lambda path, option: asked.append((path, option))
    )
    arguments = ["--workdir", "gs://b/run", "--model=vit:s3://c/v.npz", "--output=out"]
    found = buckets.check_buckets(arguments, ["model.weights=gs://b/x"], ["--workdir"])
    assert found == ["gs://b/run", "s3://c/v.npz", "gs://b/x"]
    assert asked == [("gs://b/run", "--workdir"), ("s3://c/v.npz", "--model")]


def test_an_address_within_metadata_is_no_path(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["enroll", f"--gallery={tmp_path}/g", "--metadata=home=https://a.org"])
    assert "mount the bucket" not in capsys.readouterr().err
