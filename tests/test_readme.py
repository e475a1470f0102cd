"""The README's example runs as it stands, and the files that it names exist."""

import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def run_example(code, folder):
    script = folder / "example.py"
    script.write_text(code)
    done = subprocess.run(
        [sys.executable, script],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "PATH": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_first_example_runs(tmp_path):
    code = EXAMPLES[0] + "\nprint(embedding.shape, bias[0].shape)\n"
    assert run_example(code, tmp_path) == "(2, 64) (2, 4, 25, 25)\n"


@pytest.mark.slow
def test_the_second_example_tells_two_people_apart(tmp_path):
    printed = run_example(EXAMPLES[1], tmp_path)
    cosines = np.array(re.findall(r"-?\d+\.\d*", printed), float).reshape(3, 3)
    assert cosines[0, 1] > cosines[:2, 2].max() + 0.1


def test_files_that_it_names_exist():
    named = set(re.findall(r"\b(?:configs|docs|benchmarks)/[\w/.-]*\w", README))
    assert named
    for name in named:
        assert (ROOT / name).exists(), name
