"""Registers, spills and shared memory of the Pallas kernels on a GPU.

    python -m benchmarks kernel_registers [--card h200]

Compiled and assembled, not run; needs packages that `gpu_cards` names. Prints a table
and appends a line to results/kernel_registers.jsonl.
"""

import argparse
import os
import pathlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.harness import record
from kprpe_jax.compiled import gpu_cards
from kprpe_jax.core.chips import GPUS


def kernel_cases() -> Iterator[tuple[str, Callable[..., Any], tuple[Any, ...]]]:
    """Name, function and shapes of every Pallas kernel of the sizes that matter."""
    import jax
    import jax.numpy as jnp

    from kprpe_jax.layers.fused_attention import fused_attention
    from kprpe_jax.matching.sinkhorn import FAST, transport
    from kprpe_jax.position.buckets import compute_buckets
    from kprpe_jax.position.encoding import BiasTables

    grid, buckets = (14, 14), compute_buckets((14, 14))

    def attention(qkv, tables):
        out = fused_attention(qkv, tables, buckets)
        return out.astype(jnp.float32).sum()

    shape = jax.ShapeDtypeStruct
    tables = BiasTables(
        shared=shape((8, 2, 49), jnp.float32),
        rows=shape((1, 2, grid[0] * grid[1], 49), jnp.float32),
    )
    for width in (32, 64):
        for dtype in ("bfloat16", "float32"):
            qkv = shape((8, grid[0] * grid[1], 3, 2, width), jnp.dtype(dtype))
            gradient = jax.grad(attention, (0, 1))
            name = f"attention, {width} channels, {dtype}"
            yield f"{name}, forward", attention, (qkv, tables)
            yield f"{name}, backward", gradient, (qkv, tables)
    solver = FAST._replace(domain="pallas")
    weights = shape((1000, 64), jnp.float32)
    yield (
        "earth mover's distance, 64 x 64",
        lambda cost, a, b: transport(cost, a, b, solver),
        (shape((1000, 64, 64), jnp.float32), weights, weights),
    )


def compile_kernels(devices: list[Any]) -> dict[str, Any]:
    """Registers, spills and memory of the Pallas kernels, as the assembler counts them.

    Returns: name -> what `kernel_use` gives.
    """
    import jax
    from jax.sharding import SingleDeviceSharding

    from kprpe_jax.layers.platforms import kernels_for

    place = SingleDeviceSharding(devices[0])
    results = {}
    with kernels_for("gpu"):
        for name, function, shapes in kernel_cases():
            shapes = jax.tree.map(
                lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=place), shapes
            )
            with tempfile.TemporaryDirectory() as folder:
                options = gpu_cards.COMPILER_OPTIONS | {"xla_dump_to": folder}
                jax.jit(function).lower(*shapes).compile(compiler_options=options)
                results[name] = kernel_use(pathlib.Path(folder))
    return results


def kernel_use(folder: pathlib.Path) -> dict[str, int]:
    """Read the one Pallas kernel of a program.

    Args:
      folder: of `xla_dump_to`.
    Returns: registers of a thread, bytes spilled by a thread (stored and loaded), bytes
      of shared memory, threads, and programs that a processor holds at once.
    """
    launches = [
        found
        for path in folder.glob("*.thunk_sequence.txt")
        for found in re.finditer(
            # Named as our functions are; XLA's own have no line at the front.
            r"kCustomKernel .*\] (?P<name>_\w+) grid.*threads: \[(?P<threads>\d+), .*"
            r"shared_memory: (?P<shared>\d+)",
            path.read_text(),
        )
    ]
    (launch,) = launches
    entry = re.compile(rf"\.entry {launch['name']}\(")
    code = next(p for p in folder.glob("*.ptx") if entry.search(p.read_text()))
    said = subprocess.run(
        [
            *(str(gpu_cards.find_assembler()), "-v", str(code)),
            *(f"-arch={gpu_cards.ARCHITECTURE}", "-o", os.devnull),
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stderr
    said = said[said.index(f"'{launch['name']}'") :]
    registers = int(re.search(r"Used (\d+) registers", said)[1])
    threads, shared = int(launch["threads"]), int(launch["shared"])
    return {
        "registers": registers,
        "spill_bytes": sum(map(int, re.findall(r"(\d+) bytes spill", said)[:2])),
        "shared_bytes": shared,
        "threads": threads,
        "programs_at_once": min(
            65536 // (threads * -(-registers // 8) * 8),
            233472 // (shared + 1024),  # the driver takes one KiB of each
            2048 // threads,
        ),
    }


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--card", choices=list(GPUS), default="h200", help="to compile for"
    )


def run(options: argparse.Namespace) -> None:
    """Compile, print and record."""
    devices = gpu_cards.describe_devices(GPUS[options.card])
    results = compile_kernels(devices)
    lines = [
        "| kernel | registers | spilled, bytes | shared, KiB | threads | at once |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in results.items():
        lines.append(
            f"| {name} | {row['registers']} | {row['spill_bytes']:,} | "
            f"{row['shared_bytes'] / 1024:.0f} | {row['threads']} | "
            f"{row['programs_at_once']} |"
        )
    sys.stdout.write("\n".join(lines) + "\n")
    record("kernel_registers", {"card": options.card}, results)
