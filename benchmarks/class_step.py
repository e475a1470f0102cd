"""Time of the class centres' part of a step, and what its devices send each other.

    python -m benchmarks.class_step [--rows 64 --dim 128 --rounds 5]
    python -m benchmarks.class_step --traffic [--rows 1024 --dim 512]

The step is margin softmax, its gradient and the AdamW update of the centres, or of
those that are sampled, by a rate or a number of classes. Times are of centres of `dim`
numbers on one device and on eight simulated ones, which share this machine's cores:
compare processor time. With --traffic the step is only compiled, for eight devices, and
the bytes of its collectives are added up (a ring's: a device sends (n - 1) / n of what
n devices gather, twice that of what they sum), beside the least.
Appends to benchmarks/results/class_step.jsonl or class_traffic.jsonl.
"""

import json
import math
import os
import re
import subprocess
import sys
import time
from typing import Any

from absl import app, flags

from benchmarks.class_memory import abstract_arguments, make_step
from benchmarks.hlo_text import arrays

IDENTITIES = (10_000, 125_000, 1_000_000)
RATES = (1.0, 0.6, 0.1)
SAMPLE = 8_000  # classes: a sample that does not grow with their number
MESHES = ((1, 8), (2, 4), (8, 1))  # data, class

_DIM = flags.DEFINE_integer("dim", 0, "Numbers of a centre; 128, or 512 for traffic.")
_ROWS = flags.DEFINE_integer("rows", 0, "Of the global batch; 64, or 1024.")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Timed steps.")
_TRAFFIC = flags.DEFINE_bool("traffic", False, "Compile, count bytes, run nothing.")
_MEASURE = flags.DEFINE_bool("measure", False, "For this process's devices.")

_COLLECTIVE = re.compile(
    r"= (?P<result>.*?) (?P<kind>all-gather|all-reduce|reduce-scatter|all-to-all|"
    r"collective-permute)(?P<start>-start)?\((?P<rest>.*)"
)


def collective_bytes(hlo: str) -> dict[str, float]:
    """Bytes that a device sends in one run of a compiled program, by ring algorithms.

    Args:
      hlo: text of the compiled module, for one device.
    Returns: kind of collective -> bytes; those of groups of one device are none.
    Raises: ValueError: a collective of a form that is not known.
    """
    sent: dict[str, float] = {}
    for line in hlo.splitlines():
        found = _COLLECTIVE.search(line)
        if not found:
            continue
        kind, n = found["kind"], _group_size(found["rest"])
        parts = arrays(found["result"])
        if found["start"] and kind != "all-reduce":  # operands stand before results
            parts = parts[len(parts) // 2 :]
        size = sum(width * math.prod(shape) for width, shape in parts)
        if kind not in ("all-gather", "all-reduce", "reduce-scatter"):
            raise ValueError(f"collective_bytes: cannot count a {kind}: {line.strip()}")
        share = (n - 1) / n
        factor = {"all-gather": share, "all-reduce": 2 * share, "reduce-scatter": n - 1}
        sent[kind] = sent.get(kind, 0.0) + factor[kind] * size
    return sent


def _group_size(text: str) -> int:
    listed = re.search(r"replica_groups=\{\{([\d,]*)\}", text)
    if listed:
        return len(listed[1].split(","))
    counted = re.search(r"replica_groups=\[\d+,(\d+)\]", text)
    if counted:
        return int(counted[1])
    named = re.search(
        r"replica_groups=mesh\[(.*?)\](?:, device_ids=\S*)? \{(.*?)\}", text
    )
    if named:
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", named[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", named[2]))
    raise ValueError(f"collective_bytes: no replica_groups in {text[:200]}")


def least_bytes(
    *, batch: int, dim: int, slots: int, data: int, classes: int
) -> dict[str, float]:
    """What a device must send, in float32, on a mesh of data * classes devices.

    Embeddings are gathered over the class group and their gradients reduced to their
    owners; of every row the peak, the sum and the target logit are summed, and one
    gradient comes back; the gradient of the centres' slots is summed over `data`.
    """
    rows = batch // data
    share, replicas = (classes - 1) / classes, (data - 1) / data
    return {
        "embeddings": share * rows * (dim + 1) * 4,  # with their labels
        "their gradient": share * rows * dim * 4,
        "softmax": 2 * share * rows * 4 * 3,
        "gradient of centres": 2 * replicas * slots * dim * 4,
    }


def measure_time(batch: int, dim: int, rounds: int) -> list[dict[str, Any]]:
    """Run on all devices of this process; a row per identities and rate."""
    import jax
    import numpy as np

    from kprpe_jax.training.mesh import make_mesh

    mesh = make_mesh({"data": 1, "fsdp": 1, "class": -1})
    results = []
    for identities in IDENTITIES:
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
                    "identities": identities,
                    "sample_rate": rate,
                    "wall_s": sorted(wall[1:])[rounds // 2],
                    "processor_s": sorted(busy[1:])[rounds // 2],
                }
            )
    return results


def measure_traffic(batch: int, dim: int) -> list[dict[str, Any]]:
    """Compile for eight devices; a row per mesh, identities and rate."""
    import jax

    from kprpe_jax.losses.class_centers import padded_classes
    from kprpe_jax.losses.class_sampling import num_slots
    from kprpe_jax.training.mesh import make_mesh

    results = []
    for data, classes in MESHES:
        mesh = make_mesh({"data": data, "fsdp": 1, "class": classes})
        for identities in IDENTITIES:
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
        [sys.executable, "-m", "benchmarks.class_step", "--measure", *arguments],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": given},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return json.loads(result.stdout)


def _time_table(rows: list[dict[str, Any]]) -> list[str]:
    names = [*(f"rate {rate:g}" for rate in RATES), f"{SAMPLE:,} classes"]
    lines = [f"| identities | devices | {' | '.join(names)} |"]
    lines.append("|---" * (2 + len(names)) + "|")
    for start in range(0, len(rows), len(names)):
        part = rows[start : start + len(names)]
        cells = " | ".join(f"{1000 * row['processor_s']:,.0f}" for row in part)
        lines.append(f"| {part[0]['identities']:,} | {part[0]['devices']} | {cells} |")
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


def main(_: list[str]) -> None:
    """Measure, print and record."""
    batch = _ROWS.value or (1024 if _TRAFFIC.value else 64)
    dim = _DIM.value or (512 if _TRAFFIC.value else 128)
    if _MEASURE.value:
        measured = (
            measure_traffic(batch, dim)
            if _TRAFFIC.value
            else measure_time(batch, dim, _ROUNDS.value)
        )
        json.dump(measured, sys.stdout)
        return
    from benchmarks import harness

    settings = {"batch_size": batch, "dim": dim}
    arguments = [f"--rows={batch}", f"--dim={dim}"]
    if _TRAFFIC.value:
        rows = _in_own_process(8, "--traffic", *arguments)
        name, lines = "class_traffic", _traffic_table(rows)
    else:
        arguments.append(f"--rounds={_ROUNDS.value}")
        rows = [r for n in (1, 8) for r in _in_own_process(n, *arguments)]
        name, lines = "class_step", _time_table(rows)
    sys.stdout.write("\n".join(lines) + "\n")
    harness.record(name, settings, {"rows": rows})


if __name__ == "__main__":
    app.run(main)
