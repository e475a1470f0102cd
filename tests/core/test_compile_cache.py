"""A second process finds what the first compiled."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PROGRAM = """
from kprpe_jax.core import compile_cache
compile_cache._LEAST_SECONDS = 0.0
compile_cache.use_compile_cache()
import jax, jax.numpy as jnp
events = []
jax.monitoring.register_event_listener(lambda event, **_: events.append(event))
print(jax.jit(lambda x: jnp.sin(x) @ x.T)(jnp.ones((3, 5))).sum())
print(events.count("/jax/compilation_cache/cache_hits"))
"""


def run(home, **environ):
    environ = {"XDG_CACHE_HOME": str(home), "JAX_PLATFORMS": "cpu", **environ}
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("JAX", "XLA"))}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env={**kept, **environ},
        capture_output=True,
        text=True,
        check=True,
    )
    value, hits = done.stdout.split()
    return value, int(hits)


def entries(home):
    return {path.name for path in home.rglob("*-cache")}


@pytest.mark.slow
def test_programs_are_kept_in_the_cache_folder_unless_told_otherwise(tmp_path):
    home, other, none = (tmp_path / name for name in ("home", "other", "none"))
    value, hits = run(home)
    assert hits == 0
    kept = entries(home)
    assert any("lambda" in name for name in kept)
    again, hits = run(home)
    assert again == value
    assert hits > 0
    assert entries(home) == kept

    run(home, JAX_COMPILATION_CACHE_DIR=str(other))
    assert entries(home) == kept
    run(none, JAX_ENABLE_COMPILATION_CACHE="false")
    assert not entries(none)
