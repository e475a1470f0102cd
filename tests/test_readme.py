"""The README's example runs as it stands, and the files that it names exist."""

import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


@pytest.mark.slow
def test_the_first_example_runs(tmp_path):
    code = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[0]
    script = tmp_path / "example.py"
    script.write_text(code + "\nprint(embedding.shape, bias[0].shape)\n")
    done = subprocess.run(
        [sys.executable, script],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "PATH": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "(2, 64) (2, 4, 25, 25)\n"


def test_files_that_it_names_exist():
    named = set(re.findall(r"\b(?:configs|docs|benchmarks)/[\w/.-]*\w", README))
    assert named
    for name in named:
        assert (ROOT / name).exists(), name
