"""What a result says of the machine and the code."""

import subprocess

import jax
import pytest

from benchmarks import harness


@pytest.fixture
def checkout(tmp_path):
    def git(*arguments):
        who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True)

    git("init", "-q")
    (tmp_path / "results").mkdir()
    for name in ("code.py", "results/speed.jsonl"):
        (tmp_path / name).write_text("1")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    return tmp_path


def test_versions_of_packages_driver_and_code(checkout, tmp_path):
    driver = tmp_path / "version"
    driver.write_text("NVRM version: NVIDIA UNIX Module  570.86.15  Tue Jan  7 2025\n")
    found = harness.versions(driver=driver, checkout=checkout)
    assert found["jax"] == jax.__version__
    assert {"jaxlib", "flax", "numpy", "optax", "ott-jax"} < set(found)
    assert found["driver"] == "570.86.15"
    assert 7 <= len(found["commit"]) <= 12
    assert "runtime" not in found  # no GPU


def test_changed_code_is_marked_and_changed_results_are_not(checkout):
    def commit():
        return harness.versions(checkout=checkout)["commit"]

    clean = commit()
    (checkout / "results/speed.jsonl").write_text("2")
    assert commit() == clean
    (checkout / "code.py").write_text("2")
    assert commit() == clean + "+"


def test_no_repository_and_no_git(tmp_path, monkeypatch):
    assert "commit" not in harness.versions(checkout=tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "commit" not in harness.versions()
