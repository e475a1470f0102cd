"""Memory of fusing one long template as the protocols do, frame by frame.

    python -m benchmarks long_template [--frames 1000,10000,100000]

A network of the official size fuses random features that are made as they are needed:
each length in a process of its own, whose peak memory is told beside the size of all
features and of the state that is kept. Appends a line to benchmarks/results/.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from benchmarks import harness
from benchmarks.set_fusion import EMBED_DIM, draw_sets, make_model
from kprpe_jax.commands.options import words
from kprpe_jax.core.features import Features
from kprpe_jax.fusion.stream import ImageRows, fuse_rows
from kprpe_jax.weights.caface import STYLE_CHANNELS

_PART = 64  # images of a batch of the backbone
_ROW_BYTES = 4 * (EMBED_DIM + 2 * STYLE_CHANNELS)
# One heap whose freed blocks go back at once: otherwise the peak is that of the C
# library's heaps of each thread, and differs by 100 MiB from run to run.
_ONE_HEAP = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}


def fuse_frames(frames: int) -> dict[str, Any]:
    """Fuse a template of so many random frames, in this process.

    Returns: seconds, and in MiB: peak_mib of the process, tenth_mib, its peak after a
      tenth of the frames, features_mib of all features, state_mib of the fusion's
      state.
    """
    model = make_model("cluster_aggregate")
    variables = jax.jit(model.init)(jax.random.key(0), draw_sets(2))
    pool = np.random.default_rng(0).normal(size=(_PART + 101, 2 * STYLE_CHANNELS))
    pool = pool.astype(np.float32)

    peaks = []

    def parts(count: int) -> Iterator[ImageRows]:
        for start in range(0, count, _PART):
            if start >= count / 10:
                peaks.append(_peak_mib())
            size = min(_PART, count - start)
            rows = pool[start // _PART % 101 :][:size]
            style = rows.reshape(size, STYLE_CHANNELS, 2).copy()
            features = Features(rows[:, :EMBED_DIM].copy(), style=style)
            yield ImageRows(np.zeros(size, np.int64), features)

    ((_, warm),) = fuse_rows(model, variables, parts(256))
    peaks.clear()
    start = time.perf_counter()
    ((_, fused),) = fuse_rows(model, variables, parts(frames))
    seconds = time.perf_counter() - start
    if not (np.isfinite(fused).all() and np.isfinite(warm).all()):
        raise RuntimeError("long_template: the fused embedding is not finite")
    state = sum(np.asarray(x).nbytes for x in model.init_state(1))
    return {
        "seconds": round(seconds, 2),
        "peak_mib": _peak_mib(),
        "tenth_mib": peaks[0],
        "features_mib": round(frames * _ROW_BYTES / 2**20, 1),
        "state_mib": round(state / 2**20, 3),
    }


def fuse_in_child(frames: int) -> dict[str, Any]:
    """As `fuse_frames`, in a process of its own."""
    code = (
        "import json, sys; from benchmarks.long_template import fuse_frames; "
        "print(json.dumps(fuse_frames(int(sys.argv[1]))))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, str(frames)],
        check=True,
        env=os.environ | _ONE_HEAP,
        stdout=subprocess.PIPE,
        text=True,
    )
    return json.loads(found.stdout)


def _peak_mib() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--frames",
        type=words,
        default=["1000", "10000", "100000"],
        help="of the template; each length in a process of its own",
    )


def run(options: argparse.Namespace) -> None:
    """Run and print."""
    results = {frames: fuse_in_child(int(frames)) for frames in options.frames}
    harness.record("long_template", dict(frames=options.frames), results)
    for frames, found in results.items():
        sys.stdout.write(
            f"{frames:>7} frames ({found['features_mib']} MiB of features): peak "
            f"{found['peak_mib']} MiB, {found['tenth_mib']} MiB after a tenth; state "
            f"{found['state_mib']} MiB; {found['seconds']} s\n"
        )
