"""The synthesize command: data sets of the numbers that are given."""

import subprocess
import sys

import numpy as np
import pytest

from kprpe_jax import registry
from kprpe_jax.commands import synthesize
from kprpe_jax.commands.main import make_parser
from kprpe_jax.data import store
from kprpe_jax.data.prepare import default_arguments
from kprpe_jax.data.synthetic.source import FaceSource


def run(tmp_path, *arguments):
    parser = make_parser(synthesize, "synthesize")
    synthesize.run(parser.parse_args([*arguments, f"--data-dir={tmp_path}"]))


@pytest.mark.parametrize("kind", synthesize.DATA_SETS)
def test_options_are_the_arguments_of_the_builder(kind):
    builder = registry.resolve(registry.DATA_SETS[synthesize.DATA_SETS[kind]])
    assert set(synthesize.ARGUMENTS[kind]) == set(default_arguments(builder))


def test_digits(tmp_path, capsys):
    run(tmp_path, "digits", "--name=mine")
    assert capsys.readouterr().out.startswith("mine: train 1437 rows, test 360 rows; ")
    with pytest.raises(ValueError, match="--seed: is no option of digits; leave it"):
        run(tmp_path, "digits", "--seed=1")


@pytest.mark.slow
def test_faces(tmp_path):
    command = [sys.executable, "-m", "kprpe_jax", "synthesize", "faces"]
    command += ["--data-dir", str(tmp_path), "--num-identities=3"]

    def run(*options):
        return subprocess.run([*command, *options], capture_output=True, text=True)

    first = run(
        "--num-test-identities=1", "--images-per-identity=2", "--size=32",
        "--difficulty=0.5", "--seed=4", "--layout=free",
    )  # fmt: skip
    assert first.stdout.startswith("synthetic_faces: train 6 rows, test 2 rows; in ")
    rendered = FaceSource(
        num_identities=3, images_per_identity=2, size=32, difficulty=0.5, seed=4,
        layout="free",
    )  # fmt: skip
    stored = store.open_split(tmp_path, "synthetic_faces", "train")
    np.testing.assert_allclose(
        stored[5]["landmarks"], rendered[5]["landmarks"], atol=1e-5
    )
    other = run("--seed=5")
    assert other.returncode == 2
    assert other.stderr.startswith(f"error: {tmp_path}")
    assert "{'num_identities': 3, 'seed': 4}; delete it or" in other.stderr
