"""Memory per device of the class centres' part of a step, from compiled programs.

    python -m benchmarks.class_memory [--chips 1,8,64,256 --batch_size 1024]

For every number of identities and chips the margin softmax, its gradient and the AdamW
update of centres of 512 numbers are compiled (not run) for that many simulated devices,
all on the mesh's `class` axis, and XLA is asked what a device needs: `arguments` are
the centres, both moments and the batch, `temporary` the rest, logits above all. Prints
a Markdown table and appends a line to benchmarks/results/class_memory.jsonl.
"""

import json
import os
import subprocess
import sys
from typing import Any

from absl import app, flags

IDENTITIES = (10_000, 205_990, 617_970, 2_000_000)
RATES = (1.0, 0.1)
DIM = 512

_CHIPS = flags.DEFINE_list("chips", ["1", "8", "64", "256"], "Devices of the meshes.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 1024, "Rows of the global batch.")
_HERE = flags.DEFINE_bool("here", False, "Compile for this process's devices.")


def measure(batch_size: int) -> list[dict[str, Any]]:
    """Compile for all devices of this process; a row per identities and rate."""
    import jax
    import jax.numpy as jnp
    import optax
    from jax.sharding import NamedSharding, PartitionSpec

    from kprpe_jax.losses.class_centers import margin_softmax, padded_classes
    from kprpe_jax.losses.margin import make_margin
    from kprpe_jax.training.mesh import batch_sharding, make_mesh

    mesh = make_mesh({"data": 1, "fsdp": 1, "class": -1})
    by_class = NamedSharding(mesh, PartitionSpec("class"))
    margin = make_margin("cosface", margin=0.35)
    optimizer = optax.adamw(1e-3)

    def compiled(identities: int, rate: float) -> jax.stages.Compiled:
        def step(centers, moments, embeddings, labels, noise):
            def loss(embeddings, centers):
                return margin_softmax(
                    embeddings,
                    centers,
                    labels,
                    margin=margin,
                    num_classes=identities,
                    mesh=mesh,
                    sample_rate=rate,
                    noise=noise,
                ).loss

            grads = jax.grad(loss, argnums=(0, 1))(embeddings, centers)
            updates, moments = optimizer.update(grads[1], moments, centers)
            return optax.apply_updates(centers, updates), moments, grads[0]

        rows = padded_classes(identities)
        centers = jax.ShapeDtypeStruct((rows, DIM), jnp.float32, sharding=by_class)
        moments = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(
                leaf.shape,
                leaf.dtype,
                sharding=by_class
                if leaf.ndim
                else NamedSharding(mesh, PartitionSpec()),
            ),
            jax.eval_shape(optimizer.init, centers),
        )
        batch = batch_sharding(mesh)
        arguments = (
            centers,
            moments,
            jax.ShapeDtypeStruct((batch_size, DIM), jnp.float32, sharding=batch),
            jax.ShapeDtypeStruct((batch_size,), jnp.int32, sharding=batch),
            jax.ShapeDtypeStruct((rows,), jnp.float32, sharding=by_class),
        )
        return jax.jit(step, donate_argnums=(0, 1)).lower(*arguments).compile()

    results = []
    for identities in IDENTITIES:
        for rate in RATES:
            memory = compiled(identities, rate).memory_analysis()
            results.append(
                {
                    "chips": mesh.size,
                    "identities": identities,
                    "sample_rate": rate,
                    "arguments_mib": memory.argument_size_in_bytes / 2**20,
                    "temporary_mib": memory.temp_size_in_bytes / 2**20,
                    "least_mib": 3 * 4 * DIM * identities / mesh.size / 2**20,
                }
            )
    return results


def _in_own_process(chips: str, batch_size: int) -> list[dict[str, Any]]:
    """The number of simulated devices is fixed when JAX starts."""
    count = f"--xla_force_host_platform_device_count={chips}"
    command = [sys.executable, "-m", "benchmarks.class_memory", "--here"]
    result = subprocess.run(
        [*command, f"--batch_size={batch_size}"],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": count},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return json.loads(result.stdout)


def main(_: list[str]) -> None:
    """Compile, print and record."""
    if _HERE.value:
        json.dump(measure(_BATCH_SIZE.value), sys.stdout)
        return
    from benchmarks import harness

    rows = [
        row
        for chips in _CHIPS.value
        for row in _in_own_process(chips, _BATCH_SIZE.value)
    ]
    lines = [
        "| identities | chips | least | centres, moments | rest, rate 1 | rest, 0.1 |",
        "|---|---|---|---|---|---|",
    ]
    for whole, part in zip(rows[::2], rows[1::2], strict=True):
        lines.append(
            f"| {whole['identities']:,} | {whole['chips']} | "
            f"{whole['least_mib']:,.0f} | {whole['arguments_mib']:,.0f} | "
            f"{whole['temporary_mib']:,.0f} | {part['temporary_mib']:,.0f} |"
        )
    sys.stdout.write("\n".join(lines) + "\n")
    harness.record("class_memory", {"batch_size": _BATCH_SIZE.value}, {"rows": rows})


if __name__ == "__main__":
    app.run(main)
