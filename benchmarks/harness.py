"""Time variants side by side and describe the machine.

Variants take turns within each round, so that a machine whose speed drifts slows all of
them alike; figures to compare are the ratios of one run.
"""

import contextlib
import datetime
import json
import os
import pathlib
import platform
import re
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import jax

RESULTS = pathlib.Path(__file__).parent / "results"
PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "numpy",
    "optax",
    "ott-jax",
    "jax-cuda12-pjrt",
    "libtpu",
)


def time_variants(
    variants: Mapping[str, Callable[[], Any]],
    *,
    rounds: int,
    warmup: int = 1,
    clock: Callable[[], float] = time.perf_counter,
    pause: float = 0.0,
) -> dict[str, list[float]]:
    """Run each variant `rounds` times, in turn.

    Args:
      variants: name -> call that returns device arrays; compiled before.
      rounds: timed calls of each.
      warmup: calls before the clock runs.
      clock: seconds; `time.process_time` leaves out what other processes take of a CPU.
      pause: seconds before each call, in which threads of the last one stop waiting.
    Returns: name -> seconds of each call.
    """
    for call in variants.values():
        for _ in range(warmup):
            jax.block_until_ready(call())
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, call in variants.items():
            time.sleep(pause)
            start = clock()
            jax.block_until_ready(call())
            seconds[name].append(clock() - start)
    return seconds


def device_clock() -> Callable[[], float]:
    """Seconds of the processor where that is the device, else of the wall's clock.

    Other work on the machine changes a clock's time, hardly a processor's.
    """
    on_cpu = jax.devices()[0].platform == "cpu"
    return time.process_time if on_cpu else time.perf_counter


def summarize(
    seconds: Mapping[str, Iterable[float]], *, baseline: str, items: int
) -> dict[str, dict[str, float]]:
    """Median and spread of each variant, and its ratio to the baseline.

    Args:
      seconds: from `time_variants`.
      baseline: name of the variant that the others are compared with.
      items: what one call processes, for the throughput.
    Returns: name -> median_s, min_s, max_s, items_per_s and time_ratio: the median over
      rounds of (this variant's time / the baseline's time in the same round).
    """
    reference = list(seconds[baseline])
    summary = {}
    for name, values in seconds.items():
        values = list(values)
        ratios = [a / b for a, b in zip(values, reference, strict=True)]
        median = statistics.median(values)
        summary[name] = {
            "median_s": median,
            "min_s": min(values),
            "max_s": max(values),
            "items_per_s": items / median,
            "time_ratio": statistics.median(ratios),
        }
    return summary


def program_size(compiled: jax.stages.Compiled) -> dict[str, float]:
    """FLOPs and memory that XLA's own analysis gives for a compiled program."""
    cost, memory = compiled.cost_analysis(), compiled.memory_analysis()
    return {
        "gflop": cost["flops"] / 1e9,
        "argument_mib": memory.argument_size_in_bytes / 2**20,
        "temporary_mib": memory.temp_size_in_bytes / 2**20,
    }


def machine() -> dict[str, Any]:
    """What the figures depend on; of versions those that there are."""
    processor = platform.processor() or platform.machine()
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [
            line.split(":", 1)[1].strip()
            for line in cpuinfo.read_text().splitlines()
            if line.startswith("model name")
        ]
        processor = models[0] if models else processor
    return {
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "processor": processor,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **versions(),
    }


def versions(
    *,
    driver: pathlib.Path = pathlib.Path("/proc/driver/nvidia/version"),
    checkout: pathlib.Path = pathlib.Path(__file__).parent,
) -> dict[str, str]:
    """Find versions of PACKAGES, of this code and of what drives a GPU.

    Args:
      driver: NVIDIA's file about its driver.
      checkout: a folder under git.
    Returns: name -> version, without those that cannot be found out. `commit` has a
      "+" where tracked files differ from it.
    """
    found: dict[str, str] = {}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    head = _git(checkout, "rev-parse", "--short", "HEAD")
    if head:
        # Every benchmark changes the results.
        changed = _git(
            checkout, "status", "--porcelain", "-uno", "--", ":/", ":(exclude)results"
        )
        found["commit"] = head + ("+" if changed else "")
    if driver.is_file():
        number = re.search(r" (\d+\.[\d.]+) ", driver.read_text())
        found |= {"driver": number[1]} if number else {}
    if jax.devices()[0].platform == "gpu":
        found["runtime"] = jax.devices()[0].client.platform_version.split("\n")[-1]
    return found


def _git(folder: pathlib.Path, *arguments: str) -> str:
    """What git prints; nothing where there is no git or no repository."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def record(name: str, settings: dict[str, Any], results: dict[str, Any]) -> None:
    """Append one line to results/NAME.jsonl."""
    RESULTS.mkdir(exist_ok=True)
    row = {
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "settings": settings,
        "results": results,
    }
    with (RESULTS / f"{name}.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")


def recorded(name: str, settings: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """Lines of results/NAME.jsonl, the newest last.

    Args:
      name: of the results.
      settings: only lines of these; None = all.
    Raises: ValueError: there are none.
    """
    path = RESULTS / f"{name}.jsonl"
    text = path.read_text() if path.is_file() else ""
    rows = [json.loads(line) for line in text.splitlines()]
    rows = [row for row in rows if settings is None or row["settings"] == settings]
    if not rows:
        of = f" of {settings}" if settings else ""
        raise ValueError(
            f"benchmarks: {path} must hold a result{of}; got none; run the benchmark "
            "first."
        )
    return rows
