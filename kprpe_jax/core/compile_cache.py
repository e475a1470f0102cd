"""Compiled programs kept on disk, so that a command's second start is quick."""

import hashlib
import os
import pathlib
import platform

import jax

_LEAST_SECONDS = 0.5  # what compiles faster is not kept


def use_compile_cache() -> None:
    """Keep programs in ~/.cache/kprpe_jax, or where JAX_COMPILATION_CACHE_DIR says.

    JAX_ENABLE_COMPILATION_CACHE=false turns it off. Programs for a CPU fit that CPU
    alone: homes that machines share have a folder for each kind of them.
    """
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return  # JAX has read it
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    folder = pathlib.Path(home, "kprpe_jax", _processor())
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _LEAST_SECONDS)


def _processor() -> str:
    """Short digest of what the processor can do."""
    known = platform.machine()
    try:
        with open("/proc/cpuinfo") as file:
            known += next((line for line in file if line.startswith("flags")), "")
    except OSError:
        known += platform.processor()
    return hashlib.sha256(known.encode()).hexdigest()[:12]
