"""How processes find each other, in pretended and in real clusters."""

import os
import subprocess
import sys

import jax
import pytest

from kprpe_jax.core.processes import (
    describe_processes,
    expected_processes,
    initialize_distributed,
)


@pytest.mark.parametrize(
    ("environ", "several"),
    [
        ({}, False),
        ({"SLURM_NTASKS": "4"}, False),  # a shell in an allocation, no step
        ({"SLURM_STEP_NUM_TASKS": "4"}, True),
        ({"SLURM_STEP_NUM_TASKS": "1"}, False),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, True),
        ({"JAX_COORDINATOR_ADDRESS": "a:1"}, True),
        ({"OMPI_MCA_orte_hnp_uri": "1;tcp://10.0.0.1:1"}, True),
        # A script that srun did not start: JAX itself would wait for three others.
        (
            {
                "SLURM_JOB_ID": "1",
                "SLURM_STEP_NODELIST": "a",
                "SLURM_NTASKS": "4",
                "SLURM_PROCID": "0",
                "SLURM_LOCALID": "0",
            },
            False,
        ),
    ],
)
def test_environment_says_several_processes(monkeypatch, environ, several):
    for name in ("SLURM_STEP_NUM_TASKS", "TPU_WORKER_HOSTNAMES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *a: calls.append(a))
    assert bool(initialize_distributed()) == several
    assert calls == ([()] if several else [])


def test_explicit_processes(monkeypatch):
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *a: calls.append(a))
    assert initialize_distributed("h:1", 2, 1)
    assert initialize_distributed("auto")
    assert calls == [("h:1", 2, 1), ()]
    with pytest.raises(ValueError, match="belong together; got"):
        initialize_distributed("h:1", 2)
    with pytest.raises(ValueError, match=r"process-id must lie in .* got 2 of 2"):
        initialize_distributed("h:1", 2, 2)


def test_one_process_alone_is_told_of_the_others():
    (line,) = describe_processes("", {})
    assert line.startswith("processes: 1, hosts: 1, slices: 1, cpu devices: ")
    assert line.endswith("found by nothing: no flags, no cluster")
    environ = {"SLURM_NTASKS": "8", "TPU_WORKER_HOSTNAMES": "a,b"}
    _, warning = describe_processes("", environ)
    assert "runs alone, though SLURM_NTASKS says 8 and TPU_WORKER_HOST" in warning
    assert not expected_processes({"SLURM_NTASKS": "1", "MEGASCALE_NUM_SLICES": "x"})


PROGRAM = """
import os
from kprpe_jax.core.processes import describe_processes, initialize_distributed
found = initialize_distributed()
print(*describe_processes(found, os.environ), sep="\\n")
"""


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_real_processes_find_each_other_as_srun_starts_them(count):
    """The variables of a SLURM step on this machine; JAX reads them."""
    job = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_STEP_NODELIST": "localhost"}
    job |= {name: str(count) for name in ("SLURM_NTASKS", "SLURM_STEP_NUM_TASKS")}
    environ = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | job
    environ |= {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "2"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            env={**environ, "SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(count)
    ]
    texts = [process.communicate(timeout=120)[0] for process in started]
    told = {
        line
        for text in texts
        for line in text.splitlines()
        if not line.startswith("[Gloo]")  # of the library that carries the collectives
    }
    assert told == {
        f"processes: {count}, hosts: 1, slices: 1, cpu devices: {2 * count}; "
        "found by SLURM"
    }
