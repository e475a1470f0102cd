"""Time of the class centers' part of a step, and what its devices send each other.

    python -m benchmarks class_step [--rows 64 --dim 128 --rounds 5]
    python -m benchmarks class_step --traffic [--rows 1024 --dim 512]

The step is margin softmax, its gradient and the AdamW update of the centers, or of
those that are sampled, by a rate or a number of classes. Times are of centers of `dim`
numbers on one device and on meshes of eight simulated ones, which share this machine's
cores: compare processor time. With --traffic the step is only compiled, for eight
devices, and the bytes of its collectives are added up (a ring's: a device sends
(n - 1) / n of what n devices gather, twice that of what they sum), beside the least.
Appends to benchmarks/results/class_step.jsonl or class_traffic.jsonl.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.class_memory import abstract_arguments, make_step
from kprpe_jax.commands.options import words
from kprpe_jax.compiled.collectives import collective_bytes, least_bytes

IDENTITIES = (10_000, 125_000, 1_000_000)
RATES = (1.0, 0.6, 0.1)
SAMPLE = 8_000  # classes: a sample that does not grow with their number
MESHES = ((1, 8), (2, 4), (8, 1))  # data, class
TIMED = ((1, 1), (8, 1), (8, 2))  # devices, data; the others on class


def measure_time(
    options: argparse.Namespace,
    batch: int,
    dim: int,
    rounds: int,
    numbers: Sequence[int],
) -> list[dict[str, Any]]:
    """Run on all devices of this process; a row per number of identities and rate."""
    import jax
    import numpy as np

    from kprpe_jax.core.mesh import make_mesh

    mesh = make_mesh({"data": options.data, "fsdp": 1, "class": -1})
    results = []
    for identities in numbers:
        for rate in (*RATES, SAMPLE / identities):
            step = jax.jit(make_step(mesh, identities, rate), donate_argnums=(0, 1))
            shapes = abstract_arguments(mesh, identities, batch, dim=dim)[:-1]
            rng = np.random.default_rng(0)
            centers, moments, x, labels = jax.tree.map(
                lambda s, rng=rng: jax.device_put(
                    rng.random(s.shape, np.float32)
                    if s.dtype == np.float32
                    else np.zeros(s.shape, s.dtype),
                    s.sharding,
                ),
                shapes,
            )
            labels = jax.device_put(
                rng.integers(0, identities, batch).astype(np.int32), labels.sharding
            )
            wall, busy = [], []
            for n in range(rounds + 1):  # the first one compiles
                key = jax.random.key(n)
                start, used = time.perf_counter(), time.process_time()
                centers, moments, grad = step(centers, moments, x, labels, key)
                jax.block_until_ready((centers, moments, grad))
                wall.append(time.perf_counter() - start)
                busy.append(time.process_time() - used)
            results.append(
                {
                    "devices": mesh.size,
                    "data": options.data,
                    "identities": identities,
                    "sample_rate": rate,
                    "wall_s": sorted(wall[1:])[rounds // 2],
                    "processor_s": sorted(busy[1:])[rounds // 2],
                }
            )
    return results


def measure_traffic(
    batch: int, dim: int, numbers: Sequence[int]
) -> list[dict[str, Any]]:
    """Compile for eight devices; a row per mesh, number of identities and rate."""
    import jax

    from kprpe_jax.core.mesh import make_mesh
    from kprpe_jax.losses.class_centers import padded_classes
    from kprpe_jax.losses.class_sampling import num_slots

    results = []
    for data, classes in MESHES:
        mesh = make_mesh({"data": data, "fsdp": 1, "class": classes})
        for identities in numbers:
            for rate in RATES:
                step = jax.jit(make_step(mesh, identities, rate), donate_argnums=(0, 1))
                shapes = abstract_arguments(mesh, identities, batch, dim=dim)
                sent = collective_bytes(step.lower(*shapes).compile().as_text())
                slots = here = padded_classes(identities) // classes
                if rate < 1:
                    slots = num_slots(here, rate, batch)
                least = least_bytes(
                    batch=batch, dim=dim, slots=slots, data=data, classes=classes
                )
                results.append(
                    {
                        "data": data,
                        "class": classes,
                        "identities": identities,
                        "sample_rate": rate,
                        "sent": sent,
                        "least": least,
                    }
                )
    return results


def _in_own_process(devices: int, *arguments: str) -> list[dict[str, Any]]:
    """The number of simulated devices is fixed when JAX starts."""
    count = f"--xla_force_host_platform_device_count={devices}"
    given = f"{os.environ.get('XLA_FLAGS', '')} {count}"
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks", "class_step", "--measure", *arguments],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": given},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return json.loads(result.stdout)


def _time_table(rows: list[dict[str, Any]]) -> list[str]:
    names = [*(f"rate {rate:g}" for rate in RATES), f"{SAMPLE:,} classes"]
    lines = [f"| identities | data × class | {' | '.join(names)} |"]
    lines.append("|---" * (2 + len(names)) + "|")
    for start in range(0, len(rows), len(names)):
        part = rows[start : start + len(names)]
        cells = " | ".join(f"{1000 * row['processor_s']:,.0f}" for row in part)
        data, devices = part[0]["data"], part[0]["devices"]
        mesh = f"{data} × {devices // data}"
        lines.append(f"| {part[0]['identities']:,} | {mesh} | {cells} |")
    return lines


def _traffic_table(rows: list[dict[str, Any]]) -> list[str]:
    lines = ["| identities | data × class | rate | sent, MB | least, MB |"]
    lines.append("|---" * 5 + "|")
    for row in rows:
        sent, least = (sum(row[key].values()) / 1e6 for key in ("sent", "least"))
        lines.append(
            f"| {row['identities']:,} | {row['data']} × {row['class']} | "
            f"{row['sample_rate']:g} | {sent:,.2f} | {least:,.2f} |"
        )
    return lines


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--dim",
        type=int,
        default=0,
        help="numbers of a center; 128, or 512 for traffic",
    )
    parser.add_argument(
        "--rows", type=int, default=0, help="of the global batch; 64, or 1024"
    )
    parser.add_argument(
        "--classes", type=words, default=list(map(str, IDENTITIES)), help="classes"
    )
    parser.add_argument("--rounds", type=int, default=5, help="timed steps")
    parser.add_argument(
        "--traffic", action="store_true", help="compile, count bytes, run nothing"
    )
    parser.add_argument(
        "--data", type=int, default=1, help="of the timed mesh; the rest is class"
    )
    parser.add_argument(
        "--measure", action="store_true", help="for this process's devices"
    )


def run(options: argparse.Namespace) -> None:
    """Measure, print and record."""
    batch = options.rows or (1024 if options.traffic else 64)
    dim = options.dim or (512 if options.traffic else 128)
    numbers = list(map(int, options.classes))
    if options.measure:
        measured = (
            measure_traffic(batch, dim, numbers)
            if options.traffic
            else measure_time(options, batch, dim, options.rounds, numbers)
        )
        json.dump(measured, sys.stdout)
        return
    from benchmarks import harness

    settings = {"batch_size": batch, "dim": dim, "identities": numbers}
    arguments = [f"--rows={batch}", f"--dim={dim}"]
    arguments.append(f"--classes={','.join(options.classes)}")
    if options.traffic:
        rows = _in_own_process(8, "--traffic", *arguments)
        name, lines = "class_traffic", _traffic_table(rows)
    else:
        arguments.append(f"--rounds={options.rounds}")
        rows = [
            row
            for devices, data in TIMED
            for row in _in_own_process(devices, f"--data={data}", *arguments)
        ]
        name, lines = "class_step", _time_table(rows)
    sys.stdout.write("\n".join(lines) + "\n")
    harness.record(name, settings, {"rows": rows})
