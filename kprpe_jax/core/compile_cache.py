"""Compiled programs kept on disk, so that a command's second start is quick."""

import hashlib
import os
import pathlib
import platform

_LEAST_SECONDS = 0.5  # what compiles faster is not kept


def use_compile_cache() -> None:
    """Keep programs in ~/.cache/kprpe_jax, or where JAX_COMPILATION_CACHE_DIR says.

    JAX_ENABLE_COMPILATION_CACHE=false turns it off. Programs for a CPU fit that CPU
    alone: homes that machines share have a folder for each kind of them. Call it
    before JAX is imported: it sets the environment that JAX reads, so that a command
    that compiles nothing need not import JAX.
    """
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    folder = pathlib.Path(home, "kprpe_jax", _processor())
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    os.environ.setdefault(
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", str(_LEAST_SECONDS)
    )


def _processor() -> str:
    """Short digest of what the processor can do."""
    known = platform.machine()
    try:
        with open("/proc/cpuinfo") as file:
            known += next((line for line in file if line.startswith("flags")), "")
    except OSError:
        known += platform.processor()
    return hashlib.sha256(known.encode()).hexdigest()[:12]
