"""Paths on buckets are refused, before a folder `gs:` is made of them."""

import pytest

from kprpe_jax.commands.main import main


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("train --config=digits --workdir=gs://bucket/run", "--workdir gs://bucket"),
        ("train --config=digits --workdir s3://bucket/run", "--workdir s3://bucket"),
        ("train --config=digits --workdir=r --config.data.dir=gs://b/d", "data.dir"),
        ("verify https://a.org/a.jpg b.jpg", "https://a.org/a.jpg"),
        ("convert gs://bucket/run", "path gs://bucket/run"),
    ],
)
def test_refused(arguments, named, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(arguments.split())
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert named in error
    assert "mount the bucket" in error
    assert not list(tmp_path.iterdir())


def test_an_address_within_metadata_is_no_path(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["enroll", f"--gallery={tmp_path}/g", "--metadata=home=https://a.org"])
    assert "mount the bucket" not in capsys.readouterr().err
