"""What a training step moves and holds on 8, 64 and 256 devices, without having them.

    python -m benchmarks scale [--preset small] [--identities 205990] [--per-device 32]
    python -m benchmarks scale --card h200 --dtype bfloat16 --meshes 8x1x1,2x4x1
    python -m benchmarks scale --table

The step of a KP-RPE transformer with AdaFace, augmentation and AdamW is compiled, not
run, for as many simulated CPU devices, or GPUs that are described (`gpu_cards`, which
names the packages). From the program come FLOPs of matrix products and memory of a
device and the bytes that it sends in each kind of collective (a ring's), beside the
least that the sharding needs; for GPUs also how much of it is sent while other kernels
run. CPUs have nothing less than float32, sum and slice where accelerators scatter the
sum, which halves it, and wait for every collective. Appends a line to
benchmarks/results/scale.jsonl; --table prints the newest of these options.
"""

import argparse
import json
import math
import os
import subprocess
import sys
from typing import Any

from kprpe_jax.commands.options import words
from kprpe_jax.compiled import hlo_text
from kprpe_jax.compiled.collectives import collective_bytes, least_bytes, sent_by
from kprpe_jax.compiled.gpu_cards import COMPILER_OPTIONS, describe_devices
from kprpe_jax.core.chips import GPUS

# data x fsdp x class
MESHES = ((8, 1, 1), (1, 1, 8), (2, 2, 2), (8, 1, 8), (2, 4, 8), (32, 1, 8), (8, 4, 8))


def in_flight(program: hlo_text.Program) -> dict[str, float]:
    """The part of `sent_by` that is sent while kernels run, by kind.

    As the program orders it: whether it takes longer than they do is not known.
    """
    total: dict[str, float] = {}
    for computation, times in program.runs():
        waiting: dict[str, bool] = {}  # collectives: has a kernel run since?
        for one in computation.values():
            if one.kind.endswith("-done"):
                if waiting.pop(one.operands[0], False):
                    start = computation[one.operands[0]]
                    for kind, sent in collective_bytes(start.line).items():
                        total[kind] = total.get(kind, 0.0) + times * sent
            elif one.kind.endswith("-start"):
                if '"is_sync":true' not in one.line:
                    waiting[one.name] = False
            elif hlo_text.is_kernel(one):
                waiting = dict.fromkeys(waiting, True)
    return total


def least(
    parameters: int, batch: int, dim: int, slots: int, mesh: tuple[int, int, int]
) -> dict[str, float]:
    """Bytes that a device must send, float32.

    Backbone parameters that lie whole are summed once; split ones are gathered forward
    and backward, and their gradients scattered, then summed over the other devices.

    Args:
      parameters: of the backbone.
      batch: images of all devices.
      dim: D, of an embedding.
      slots: class centers of a device that take part in a step.
      mesh: data, fsdp, class.
    """
    data, fsdp, classes = mesh
    size, others = 4 * parameters, data * classes
    share = (fsdp - 1) / fsdp
    centers = least_bytes(
        batch=batch, dim=dim, slots=slots, data=data * fsdp, classes=classes
    )
    return {
        "parameters": 2 * share * size,
        "their gradient": share * size + 2 * (others - 1) / others * size / fsdp,
        "class centers": sum(centers.values()),
    }


def least_state(parameters: int, centers: int, mesh: tuple[int, int, int]) -> float:
    """Bytes of parameters and two moments of a device, float32.

    Args:
      parameters: of the backbone, split by fsdp.
      centers: numbers of all class centers, split by class.
      mesh: data, fsdp, class.
    """
    _, fsdp, classes = mesh
    return 3 * 4 * (parameters / fsdp + centers / classes)


def compile_step(
    options: argparse.Namespace, sizes: tuple[int, int, int]
) -> dict[str, Any]:
    """Compile for one mesh, as the flags say; see the module."""
    from benchmarks import whole_step
    from kprpe_jax.core import mesh as mesh_lib
    from kprpe_jax.core.flops import traced_flops
    from kprpe_jax.losses.class_sampling import num_slots
    from kprpe_jax.training.sharding import bytes_per_device, flatten_with_paths

    devices, compiler_options = None, {}
    if options.card:
        devices = describe_devices(GPUS[options.card], math.prod(sizes))
        compiler_options = COMPILER_OPTIONS
    identities, rate = options.identities, options.sample_rate
    config = whole_step.make_config(
        preset=options.preset,
        identities=identities,
        dtype=options.dtype,
        sample_rate=rate,
    )
    config.mesh = dict(zip(mesh_lib.AXES, sizes, strict=True))
    mesh = mesh_lib.make_mesh(config.mesh, devices)
    batch = options.per_device * mesh.size
    traced, state, _ = whole_step.trace_step(config, mesh, batch)
    compiled = traced.lower().compile(compiler_options=compiler_options)
    program, memory = hlo_text.parse(compiled.as_text()), compiled.memory_analysis()
    backbone = flatten_with_paths(state.params["backbone"])
    count = sum(math.prod(leaf.shape) for leaf in backbone.values())
    dim, slots = config.model.output_dim, math.ceil(identities / sizes[2])
    if rate < 1:
        slots = num_slots(slots, rate, batch)
    bytes_by_name = {
        "sent_mib": sent_by(program)[0],
        "in_flight_mib": in_flight(program),
        "least_mib": least(count, batch, dim, slots, sizes),
    }
    return {
        "gflop": hlo_text.matrix_flops(program) / 1e9,
        "asked_gflop": traced_flops(traced.jaxpr) / mesh.size / 1e9,
        "state_mib": bytes_per_device(state) / 2**20,
        "least_state_mib": least_state(count, identities * dim, sizes) / 2**20,
        "argument_mib": memory.argument_size_in_bytes / 2**20,
        "temporary_mib": memory.temp_size_in_bytes / 2**20,
        **{
            name: {key: value / 2**20 for key, value in values.items()}
            for name, values in bytes_by_name.items()
        },
    }


def table(results: dict[str, Any]) -> list[str]:
    """Rows of Markdown; MiB of a device."""
    kinds = sorted({kind for row in results.values() for kind in row["sent_mib"]})
    heads = ("mesh", "GFLOP", "asked for", "state", "least", "temporary", *kinds)
    heads = (*heads, "in flight", "sent", "least")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, row in results.items():
        numbers = (
            *(row[key] for key in ("gflop", "asked_gflop", "state_mib")),
            *(row[key] for key in ("least_state_mib", "temporary_mib")),
            *(row["sent_mib"].get(kind, 0.0) for kind in kinds),
            *(sum(row[f"{k}_mib"].values()) for k in ("in_flight", "sent", "least")),
        )
        cells = " | ".join(f"{number:,.0f}" for number in numbers)
        lines.append(f"| {name.replace('x', ' × ')} | {cells} |")
    return lines


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    kept = ("preset", "identities", "per_device", "dtype", "sample_rate", "card")
    return {name: getattr(options, name) for name in kept}


def _in_process(options: argparse.Namespace, name: str) -> dict[str, Any]:
    devices = math.prod(map(int, name.split("x")))
    flags_of_xla = f"--xla_force_host_platform_device_count={devices}"
    environ = os.environ | {"XLA_FLAGS": flags_of_xla, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "benchmarks", "scale", f"--one={name}"]
    command += [
        f"--{flag.replace('_', '-')}={value}"
        for flag, value in _settings(options).items()
    ]
    done = subprocess.run(command, env=environ, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout.splitlines()[-1])


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--preset", type=str, default="small", help="size of the ViT")
    parser.add_argument("--identities", type=int, default=205990, help="class centers")
    parser.add_argument("--per-device", type=int, default=32, help="images of a device")
    parser.add_argument("--dtype", type=str, default="float32", help="compute type")
    parser.add_argument("--sample-rate", type=float, default=1.0, help="of PartialFC")
    parser.add_argument(
        "--card",
        choices=["", *GPUS],
        default="",
        help="GPUs to compile for, not CPUs",
    )
    parser.add_argument(
        "--meshes",
        type=words,
        default=["x".join(map(str, m)) for m in MESHES],
        help="dxfxc",
    )
    parser.add_argument("--table", action="store_true", help="print what was recorded")
    parser.add_argument(
        "--one", type=str, default="", help="compile for this mesh, in this process"
    )


def run(options: argparse.Namespace) -> None:
    """Compile for every mesh; print a table."""
    if options.one:
        sizes = tuple(map(int, options.one.split("x")))
        sys.stdout.write(json.dumps(compile_step(options, sizes)) + "\n")
        return
    from benchmarks import harness

    if options.table:
        results = harness.recorded("scale", _settings(options))[-1]["results"]
    else:
        results = {}
        for name in options.meshes:
            results[name] = _in_process(options, name)
            sys.stdout.write(f"{table({name: results[name]})[-1]}\n")
            sys.stdout.flush()
        harness.record("scale", _settings(options), results)
    sys.stdout.write("\n".join(table(results)) + "\n")
