"""What commands import, and the benchmark of their start."""

import subprocess
import sys

import pytest

from benchmarks import startup
from kprpe_jax.configs import digits

COSTLY = ("ott", "matplotlib", "jax.experimental.pallas", "scipy.io")


@pytest.mark.slow
def test_the_loop_imports_nothing_costly_that_it_may_not_need():
    code = "import sys, kprpe_jax.training.loop; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    modules = run.stdout.split()
    assert "jax" in modules
    assert not [name for name in COSTLY if name in modules]


@pytest.mark.slow
def test_first_step_is_timed_in_parts():
    config = digits.get_config("absolute")
    config.model.depth, config.data.batch_size = 1, 8
    parts = startup.first_step(config)
    assert len(parts) == 4
    assert all(clock > 0 and processor > 0 for processor, clock in parts.values())
