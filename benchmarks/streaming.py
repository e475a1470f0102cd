"""Memory and time of protocols on millions of scores.

    python -m benchmarks streaming [--part pairs] [--part search]

`pairs`: TAR at FAR over 15 million pairs of 25,000 templates, as many as IJB-C has.
`search`: 1:N of 10,000 probes in a gallery of a million, which comes in blocks and is
never in memory. Embeddings are random. Each part runs in a process of its own, whose
highest resident memory is compared with that before the protocol began. Appends to
benchmarks/results/streaming.jsonl.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

PARTS = ("pairs", "search")
_BLOCK_ROWS = 1 << 15


def run_pairs(options: argparse.Namespace) -> None:
    """IJB-C's 1:1; what is given is the templates, 50 MB, and the lists, 255 MB."""
    from kprpe_jax.evaluation.protocols import template_verification
    from kprpe_jax.evaluation.templates import Templates

    rng = np.random.default_rng(0)
    templates = Templates(
        np.arange(options.templates), _unit(options, rng, options.templates)
    )
    first, second = rng.integers(0, options.templates, (2, options.pairs))
    # In parts: one array would hide some of the memory that the protocol takes.
    parts = np.array_split(np.empty(options.pairs, bool), 64)
    same = np.concatenate([rng.random(len(part)) < 0.00125 for part in parts])
    _measure(lambda: template_verification(templates, first, second, same).tar)


def run_search(options: argparse.Namespace) -> None:
    """1:N; every probe has one mate in the gallery, at some distance."""
    from kprpe_jax.evaluation.identification import outcome_of_search, rank_accuracy
    from kprpe_jax.matching.nearest import search

    probes = _unit(options, np.random.default_rng(0), options.probes)
    ids = np.arange(options.probes)

    def gallery() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(0, options.gallery, _BLOCK_ROWS):
            rng = np.random.default_rng(start + 1)
            rows = np.arange(start, min(start + _BLOCK_ROWS, options.gallery))
            x = _unit(options, rng, len(rows))
            mates = rows < options.probes
            x[mates] = probes[rows[mates]] + 2 * x[mates]
            yield x, rows

    def run() -> Any:
        found = search(probes, ids, gallery(), k=20)
        return rank_accuracy(outcome_of_search(found, ids), (1, 5, 20))

    _measure(run)


def _unit(
    options: argparse.Namespace, rng: np.random.Generator, count: int
) -> np.ndarray:
    x = rng.standard_normal((count, options.dim), np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def _measure(run: Any) -> None:
    import jax

    jax.devices()  # the backend's own memory is not the protocol's
    before, used = _peak_mib(), time.process_time()
    result = run()
    report = {
        "before_mib": before,
        "peak_mib": _peak_mib(),
        "processor_s": time.process_time() - used,
        "result": np.asarray(result).tolist(),
    }
    sys.stdout.write(json.dumps(report) + "\n")


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--part", choices=list(PARTS), action="append", help="what to measure"
    )
    parser.add_argument(
        "--pairs", type=int, default=15000000, help="pairs of templates"
    )
    parser.add_argument("--templates", type=int, default=25000, help="templates")
    parser.add_argument("--probes", type=int, default=10000, help="probes")
    parser.add_argument("--gallery", type=int, default=1000000, help="gallery rows")
    parser.add_argument("--dim", type=int, default=512, help="numbers of an embedding")
    parser.add_argument(
        "--here", action="store_true", help="measure the one part in this process"
    )


def run(options: argparse.Namespace) -> None:
    """Measure, print and record."""
    if options.here:
        {"pairs": run_pairs, "search": run_search}[options.part[0]](options)
        return
    from benchmarks import harness

    kept = ("pairs", "templates", "probes", "gallery", "dim")
    sizes = {name: getattr(options, name) for name in kept}
    given = [f"--{name}={value}" for name, value in sizes.items()]
    results = {}
    for part in options.part or PARTS:
        command = [sys.executable, "-m", "benchmarks", "streaming", "--here", "--part"]
        done = subprocess.run(
            [*command, part, *given], stdout=subprocess.PIPE, check=True, text=True
        )
        results[part] = found = json.loads(done.stdout)
        sys.stdout.write(
            f"{part}: {found['peak_mib']:,.0f} MiB at most, {found['before_mib']:,.0f} "
            f"before it began; {found['processor_s']:,.0f} s of the processor\n"
        )
    harness.record("streaming", sizes, results)
