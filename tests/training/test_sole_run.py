import subprocess
import sys

import pytest

from kprpe_jax.training import loop
from kprpe_jax.training.sole_run import sole_run
from tests.training import toy

HOLD = """
import sys, time
from kprpe_jax.training.sole_run import sole_run
with sole_run(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.slow
def test_a_second_training_is_refused_and_writes_nothing(tmp_path):
    config = toy.make_config(**{"mesh.data": 8, "steps": 4, "evals.every_steps": 4})
    with (
        sole_run(tmp_path / "run"),
        pytest.raises(ValueError, match="run alone; got a folder in which another"),
    ):
        loop.train(config, tmp_path / "run", task=toy.make_task())
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["lock"]
    assert loop.train(config, tmp_path / "run", task=toy.make_task())["step"] == 4


def test_a_process_that_is_killed_lets_go(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match="another training runs"):
            sole_run(tmp_path).__enter__()
        process.kill()
    with sole_run(tmp_path):
        pass
