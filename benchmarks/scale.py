"""What a training step moves and holds on 8, 64 and 256 devices, without having them.

    python -m benchmarks.scale [--preset small] [--identities 205990] [--per_device 32]

The step of a KP-RPE transformer with AdaFace, augmentation and AdamW is compiled, not
run, for as many simulated CPU devices. From the program come FLOPs and memory of a
device and the bytes that it sends in each kind of collective (a ring's), beside the
least that the sharding needs. Compute is float32, as CPUs have nothing less; where XLA
for CPUs sums and slices, that for accelerators scatters the sum, which halves it.
Appends a line to benchmarks/results/scale.jsonl.
"""

import json
import math
import os
import subprocess
import sys
from typing import Any

from absl import app, flags

from benchmarks import hlo_text
from benchmarks.class_step import collective_bytes, least_bytes

# data x fsdp x class
MESHES = ((8, 1, 1), (1, 1, 8), (2, 2, 2), (8, 1, 8), (2, 4, 8), (32, 1, 8), (8, 4, 8))

_PRESET = flags.DEFINE_string("preset", "small", "Size of the ViT.")
_IDENTITIES = flags.DEFINE_integer("identities", 205_990, "Class centres.")
_PER_DEVICE = flags.DEFINE_integer("per_device", 32, "Images of a device.")
_MESHES = flags.DEFINE_list("meshes", ["x".join(map(str, m)) for m in MESHES], "dxfxc")
_ONE = flags.DEFINE_string("one", "", "Compile for this mesh, in this process.")


def traffic(program: hlo_text.Program) -> dict[str, float]:
    """`collective_bytes` of a whole program, where loops run as often as they do."""
    total: dict[str, float] = {}
    for computation, times in program.runs():
        lines = "\n".join(one.line for one in computation.values())
        for kind, sent in collective_bytes(lines).items():
            total[kind] = total.get(kind, 0.0) + times * sent
    return total


def least(
    parameters: int, batch: int, dim: int, identities: int, mesh: tuple[int, int, int]
) -> dict[str, float]:
    """Bytes that a device must send, float32.

    Backbone parameters that lie whole are summed once; split ones are gathered forward
    and backward, and their gradients scattered, then summed over the other devices.
    """
    data, fsdp, classes = mesh
    size, others = 4 * parameters, data * classes
    share = (fsdp - 1) / fsdp
    centers = least_bytes(
        batch=batch,
        dim=dim,
        slots=math.ceil(identities / classes),
        data=data * fsdp,
        classes=classes,
    )
    return {
        "parameters": 2 * share * size,
        "their gradient": share * size + 2 * (others - 1) / others * size / fsdp,
        "class centres": sum(centers.values()),
    }


def compile_step(
    preset: str, identities: int, per_device: int, sizes: tuple[int, int, int]
) -> dict[str, Any]:
    """Compile for one mesh of this process's devices; see the module."""
    from benchmarks import whole_step
    from kprpe_jax.training import mesh as mesh_lib
    from kprpe_jax.training.sharding import bytes_per_device, flatten_with_paths

    config = whole_step.make_config(
        preset=preset, identities=identities, dtype="float32"
    )
    config.mesh = dict(zip(mesh_lib.AXES, sizes, strict=True))
    mesh, batch = mesh_lib.make_mesh(config.mesh), per_device * math.prod(sizes)
    traced, state = whole_step.trace_step(config, mesh, batch)
    compiled = traced.lower().compile()
    program, memory = hlo_text.parse(compiled.as_text()), compiled.memory_analysis()
    backbone = flatten_with_paths(state.params["backbone"])
    count = sum(math.prod(leaf.shape) for leaf in backbone.values())
    need = least(count, batch, config.model.output_dim, identities, sizes)
    return {
        "gflop": hlo_text.matrix_flops(program) / 1e9,
        "state_mib": bytes_per_device(state) / 2**20,
        "argument_mib": memory.argument_size_in_bytes / 2**20,
        "temporary_mib": memory.temp_size_in_bytes / 2**20,
        "sent_mib": {k: v / 2**20 for k, v in traffic(program).items()},
        "least_mib": {k: v / 2**20 for k, v in need.items()},
    }


def _in_process(name: str) -> dict[str, Any]:
    devices = math.prod(map(int, name.split("x")))
    flags_of_xla = f"--xla_force_host_platform_device_count={devices}"
    environ = os.environ | {"XLA_FLAGS": flags_of_xla, "JAX_PLATFORMS": "cpu"}
    command = [
        *(sys.executable, "-m", "benchmarks.scale", f"--one={name}"),
        *(f"--preset={_PRESET.value}", f"--identities={_IDENTITIES.value}"),
        f"--per_device={_PER_DEVICE.value}",
    ]
    done = subprocess.run(command, env=environ, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout.splitlines()[-1])


def main(_: list[str]) -> None:
    """Compile for every mesh; print a table."""
    options = _PRESET.value, _IDENTITIES.value, _PER_DEVICE.value
    if _ONE.value:
        sizes = tuple(map(int, _ONE.value.split("x")))
        sys.stdout.write(json.dumps(compile_step(*options, sizes)) + "\n")
        return
    from benchmarks import harness

    results = {}
    sys.stdout.write(
        "| data x fsdp x class | GFLOP | state MiB | temporary MiB | sent MiB | least |"
        "\n|---|---|---|---|---|---|\n"
    )
    for name in _MESHES.value:
        r = results[name] = _in_process(name)
        kinds = ", ".join(f"{k} {v:.0f}" for k, v in sorted(r["sent_mib"].items()))
        sent, need = (sum(r[key].values()) for key in ("sent_mib", "least_mib"))
        sys.stdout.write(
            f"| {name} | {r['gflop']:.0f} | {r['state_mib']:.0f} | "
            f"{r['temporary_mib']:.0f} | {sent:.0f} ({kinds}) | {need:.0f} |\n"
        )
        sys.stdout.flush()
    names = ("preset", "identities", "per_device")
    harness.record("scale", dict(zip(names, options, strict=True)), results)


if __name__ == "__main__":
    app.run(main)
