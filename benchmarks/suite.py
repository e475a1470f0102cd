"""The benchmarks of one CPU, in minutes, and what changed since the last time.

    python -m benchmarks suite

Each is a process of its own, appends to benchmarks/results/, and is compared with the
newest earlier line of the same machine and settings (`history`).
"""

import argparse
import subprocess
import sys
import time

from benchmarks import history
from benchmarks.harness import RESULTS

# Module and options, small enough for two cores.
SUITE = (
    ("run", "--presets=tiny", "--batch-size=64", "--rounds=5"),
    ("augmentation", "--preset=tiny", "--step-batch=32", "--rounds=3"),
    ("alignment", "--batch-size=8", "--rounds=3"),
    ("set_fusion", "--images=50000", "--rounds=3"),
    ("matching", "--parts=rerank,search", "--rows=100000"),
    ("pair_matching", "--queries=1", "--rounds=2"),
    ("startup", "--rounds=1"),
    ("class_step", "--classes=10000", "--rounds=3"),
    ("class_memory", "--chips=1,8", "--identities=10000,205990"),
    ("scale", "--meshes=2x2x2", "--per-device=4"),
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    del parser


def run(options: argparse.Namespace) -> None:
    """Run all, then print ratios."""
    del options
    start = time.perf_counter()
    sizes = {path: path.stat().st_size for path in RESULTS.glob("*.jsonl")}
    for module, *given in SUITE:
        sys.stdout.write(f"\n== {' '.join((module, *given))}\n")
        sys.stdout.flush()
        command = [sys.executable, "-m", "benchmarks", module, *given]
        subprocess.run(command, check=True)
    sys.stdout.write(f"\n== {time.perf_counter() - start:.0f} s in all\n")
    for path in sorted(RESULTS.glob("*.jsonl")):
        if path.stat().st_size != sizes.get(path):
            sys.stdout.write(history.compare(path.stem))
