"""Memory and time of protocols on millions of scores.

    python -m benchmarks.streaming [--part pairs] [--part search]

`pairs`: TAR at FAR over 15 million pairs of 25,000 templates, as many as IJB-C has.
`search`: 1:N of 10,000 probes in a gallery of a million, which comes in blocks and is
never in memory. Embeddings are drawn. Each part runs in a process of its own, whose
highest resident memory is compared with that before the protocol began. Appends to
benchmarks/results/streaming.jsonl.
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from absl import app, flags

PARTS = ("pairs", "search")
_BLOCK_ROWS = 1 << 15

_PART = flags.DEFINE_multi_enum("part", list(PARTS), PARTS, "What to measure.")
_PAIRS = flags.DEFINE_integer("pairs", 15_000_000, "Pairs of templates.")
_TEMPLATES = flags.DEFINE_integer("templates", 25_000, "Templates.")
_PROBES = flags.DEFINE_integer("probes", 10_000, "Probes.")
_GALLERY = flags.DEFINE_integer("gallery", 1_000_000, "Gallery rows.")
_DIM = flags.DEFINE_integer("dim", 512, "Numbers of an embedding.")
_HERE = flags.DEFINE_bool("here", False, "Measure the one part in this process.")


def run_pairs() -> None:
    """IJB-C's 1:1; what is given is the templates, 50 MB, and the lists, 255 MB."""
    from kprpe_jax.evaluation.protocols import template_verification
    from kprpe_jax.evaluation.templates import Templates

    rng = np.random.default_rng(0)
    templates = Templates(np.arange(_TEMPLATES.value), _unit(rng, _TEMPLATES.value))
    first, second = rng.integers(0, _TEMPLATES.value, (2, _PAIRS.value))
    # In parts: one array would hide some of the memory that the protocol takes.
    parts = np.array_split(np.empty(_PAIRS.value, bool), 64)
    same = np.concatenate([rng.random(len(part)) < 0.00125 for part in parts])
    _measure(lambda: template_verification(templates, first, second, same).tar)


def run_search() -> None:
    """1:N; every probe has one mate in the gallery, at some distance."""
    from kprpe_jax.evaluation.identification import outcome_of_search, rank_accuracy
    from kprpe_jax.matching.nearest import search

    probes = _unit(np.random.default_rng(0), _PROBES.value)
    ids = np.arange(_PROBES.value)

    def gallery() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(0, _GALLERY.value, _BLOCK_ROWS):
            rng = np.random.default_rng(start + 1)
            rows = np.arange(start, min(start + _BLOCK_ROWS, _GALLERY.value))
            x = _unit(rng, len(rows))
            mates = rows < _PROBES.value
            x[mates] = probes[rows[mates]] + 2 * x[mates]
            yield x, rows

    def run() -> Any:
        found = search(probes, ids, gallery(), k=20)
        return rank_accuracy(outcome_of_search(found, ids), (1, 5, 20))

    _measure(run)


def _unit(rng: np.random.Generator, count: int) -> np.ndarray:
    x = rng.standard_normal((count, _DIM.value), np.float32)
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


def main(_: list[str]) -> None:
    """Measure, print and record."""
    if _HERE.value:
        {"pairs": run_pairs, "search": run_search}[_PART.value[0]]()
        return
    from benchmarks import harness

    sizes = {
        flag.name: flag.value for flag in (_PAIRS, _TEMPLATES, _PROBES, _GALLERY, _DIM)
    }
    given = [f"--{name}={value}" for name, value in sizes.items()]
    results = {}
    for part in _PART.value:
        command = [sys.executable, "-m", "benchmarks.streaming", "--here", "--part"]
        done = subprocess.run(
            [*command, part, *given], stdout=subprocess.PIPE, check=True, text=True
        )
        results[part] = found = json.loads(done.stdout)
        sys.stdout.write(
            f"{part}: {found['peak_mib']:,.0f} MiB at most, {found['before_mib']:,.0f} "
            f"before it began; {found['processor_s']:,.0f} s of the processor\n"
        )
    harness.record("streaming", sizes, results)


if __name__ == "__main__":
    app.run(main)
