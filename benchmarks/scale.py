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
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from absl import app, flags

from benchmarks.class_step import collective_bytes, least_bytes

# data x fsdp x class
MESHES = ((8, 1, 1), (1, 1, 8), (2, 2, 2), (8, 1, 8), (2, 4, 8), (32, 1, 8), (8, 4, 8))

_PRESET = flags.DEFINE_string("preset", "small", "Size of the ViT.")
_IDENTITIES = flags.DEFINE_integer("identities", 205_990, "Class centres.")
_PER_DEVICE = flags.DEFINE_integer("per_device", 32, "Images of a device.")
_MESHES = flags.DEFINE_list("meshes", ["x".join(map(str, m)) for m in MESHES], "dxfxc")
_ONE = flags.DEFINE_string("one", "", "Compile for this mesh, in this process.")

_HEAD = re.compile(r"^(?:ENTRY )?%?(?P<name>[\w.\-]+) .*\{$")
_LOOP = re.compile(
    r" while\(.*body=%?(?P<body>[\w.\-]+).*known_trip_count\D*(?P<count>\d+)"
)
_CALL = re.compile(r" (?:call|conditional)\(.*")
_CALLEE = re.compile(r"(?:to_apply|computation)s?=\{?%?([\w.\-]+)")


def traffic(hlo: str) -> dict[str, float]:
    """`collective_bytes` of a whole program, where loops run as often as they do."""
    parts: dict[str, list[str]] = {}
    entry = name = ""
    for line in hlo.splitlines():
        head = _HEAD.match(line)
        if head:
            name = head["name"]
            parts[name] = []
            entry = name if line.startswith("ENTRY") else entry
        elif name:
            parts[name].append(line)

    def runs(name: str, times: int) -> Iterator[tuple[str, int]]:
        yield name, times
        for line in parts[name]:
            loop = _LOOP.search(line)
            if loop:
                yield from runs(loop["body"], times * int(loop["count"]))
            elif _CALL.search(line):
                for callee in _CALLEE.findall(line):
                    yield from runs(callee, times)

    total: dict[str, float] = {}
    for name, times in runs(entry, 1):
        for kind, sent in collective_bytes("\n".join(parts[name])).items():
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
    import jax
    import numpy as np

    from configs import kprpe_faces
    from kprpe_jax import tasks
    from kprpe_jax.backbones.vit import PRESETS
    from kprpe_jax.training import mesh as mesh_lib
    from kprpe_jax.training.optimizer import make_optimizer
    from kprpe_jax.training.sharding import bytes_per_device, flatten_with_paths
    from kprpe_jax.training.state import abstract_state
    from kprpe_jax.training.step import CompiledStep, make_train_step

    config = kprpe_faces.get_config()
    config.model.update(PRESETS[preset] | {"scan": True})
    config.model.dtype = "float32"
    config.data.num_classes, config.loss.sample_rate = identities, 1.0
    config.evals.pair_sets = ()
    config.mesh = dict(zip(mesh_lib.AXES, sizes, strict=True))
    mesh, batch = mesh_lib.make_mesh(config.mesh), per_device * math.prod(sizes)
    task = tasks.build(config, mesh)
    optimizer = make_optimizer(config.optimizer, steps=1000, steps_per_epoch=100.0)
    state = abstract_state(task, mesh, optimizer.transformation)
    shape, points = tuple(config.data.image_shape), config.data.num_keypoints
    rows = {
        "image": ((batch, *shape), np.uint8),
        "label": ((batch,), np.int32),
        "keypoints": ((batch, points, 2), np.float32),
        "has_keypoints": ((batch,), np.bool_),
    }
    step = CompiledStep(
        make_train_step(task.loss, optimizer, mesh=mesh, accumulate_steps=1),
        jax.tree.map(lambda leaf: leaf.sharding, state),
        mesh,
    )
    compiled = step.compile(
        state, {name: jax.ShapeDtypeStruct(*row) for name, row in rows.items()}
    )
    memory = compiled.memory_analysis()
    backbone = flatten_with_paths(state.params["backbone"])
    count = sum(math.prod(leaf.shape) for leaf in backbone.values())
    need = least(count, batch, config.model.output_dim, identities, sizes)
    return {
        "gflop": compiled.cost_analysis()["flops"] / 1e9,
        "state_mib": bytes_per_device(state) / 2**20,
        "argument_mib": memory.argument_size_in_bytes / 2**20,
        "temporary_mib": memory.temp_size_in_bytes / 2**20,
        "sent_mib": {k: v / 2**20 for k, v in traffic(compiled.as_text()).items()},
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
