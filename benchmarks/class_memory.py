"""Memory per device of the class centers' part of a step, from compiled programs.

    python -m benchmarks class_memory [--chips 1,8,64,256 --batch-size 1024]

For every number of identities and chips the margin softmax, its gradient and the AdamW
update of centers of 512 numbers are compiled (not run) for that many simulated devices,
all on the mesh's `class` axis, and XLA is asked what a device needs: `arguments` are
the centers, both moments and the batch, `temporary` the rest, logits above all. Prints
a Markdown table and appends a line to benchmarks/results/class_memory.jsonl.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from kprpe_jax.commands.options import words

IDENTITIES = (10_000, 205_990, 617_970, 2_000_000)
RATES = (1.0, 0.1)
DIM = 512


def make_step(mesh: Any, identities: int, rate: float) -> Callable[..., Any]:
    """The centers' part of a step: margin softmax, gradient, AdamW.

    Args:
      mesh: holds the centers.
      identities: number of classes.
      rate: of PartialFC.
    Returns: (centers, moments, embeddings, labels, noise) -> centers, moments, gradient
      of the embeddings.
    """
    import jax
    import optax

    from kprpe_jax.losses.class_centers import margin_softmax, padded_classes
    from kprpe_jax.losses.class_sampling import put_rows, sample_classes, take_rows
    from kprpe_jax.losses.margin import make_margin

    margin = make_margin("cosface", margin=0.35)
    optimizer = optax.adamw(1e-3)

    def update(centers, moments, embeddings, labels, classes):
        def loss(embeddings, centers):
            return margin_softmax(
                embeddings,
                centers,
                labels,
                margin=margin,
                num_classes=identities,
                mesh=mesh,
                classes=classes,
            ).loss

        grads = jax.grad(loss, argnums=(0, 1))(embeddings, centers)
        updates, moments = optimizer.update(grads[1], moments, centers)
        return optax.apply_updates(centers, updates), moments, grads[0]

    def step(centers, moments, embeddings, labels, rng):
        if rate == 1:
            return update(centers, moments, embeddings, labels, None)
        sample = sample_classes(
            rng,
            labels,
            rows=padded_classes(identities),
            num_classes=identities,
            sample_rate=rate,
            mesh=mesh,
        )
        whole = centers, moments
        part = jax.tree.map(
            lambda x: take_rows(x, sample.rows, mesh) if x.ndim else x, whole
        )
        *part, grad = update(*part, embeddings, labels, sample.classes)
        whole = jax.tree.map(
            lambda old, new: put_rows(old, sample, new, mesh) if new.ndim else new,
            whole,
            tuple(part),
        )
        return *whole, grad

    return step


def abstract_arguments(
    mesh: Any, identities: int, batch_size: int, *, dim: int
) -> tuple[Any, ...]:
    """Shapes and shardings of what `make_step`'s step takes."""
    import jax
    import jax.numpy as jnp
    import optax
    from jax.sharding import NamedSharding, PartitionSpec

    from kprpe_jax.core.mesh import batch_sharding
    from kprpe_jax.losses.class_centers import padded_classes

    rows, batch = padded_classes(identities), batch_sharding(mesh)
    by_class, everywhere = (
        NamedSharding(mesh, spec) for spec in (PartitionSpec("class"), PartitionSpec())
    )
    centers = jax.ShapeDtypeStruct((rows, dim), jnp.float32, sharding=by_class)
    moments = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=by_class if leaf.ndim else everywhere
        ),
        jax.eval_shape(optax.adamw(1e-3).init, centers),
    )
    return (
        centers,
        moments,
        jax.ShapeDtypeStruct((batch_size, dim), jnp.float32, sharding=batch),
        jax.ShapeDtypeStruct((batch_size,), jnp.int32, sharding=batch),
        jax.eval_shape(lambda: jax.random.key(0)),
    )


def measure(batch_size: int, numbers: Sequence[int]) -> list[dict[str, Any]]:
    """Compile for this process's devices; a row per number of identities and rate."""
    import jax

    from kprpe_jax.core.mesh import make_mesh

    mesh = make_mesh({"data": 1, "fsdp": 1, "class": -1})
    results = []
    for identities in numbers:
        for rate in RATES:
            step = jax.jit(make_step(mesh, identities, rate), donate_argnums=(0, 1))
            arguments = abstract_arguments(mesh, identities, batch_size, dim=DIM)
            memory = step.lower(*arguments).compile().memory_analysis()
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


def _in_own_process(
    options: argparse.Namespace, chips: str, batch_size: int
) -> list[dict[str, Any]]:
    """The number of simulated devices is fixed when JAX starts."""
    count = f"--xla_force_host_platform_device_count={chips}"
    command = [sys.executable, "-m", "benchmarks", "class_memory", "--here"]
    command += [f"--batch-size={batch_size}"]
    command += [f"--identities={','.join(options.identities)}"]
    result = subprocess.run(
        command,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": count},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return json.loads(result.stdout)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--chips",
        type=words,
        default=["1", "8", "64", "256"],
        help="devices of the meshes",
    )
    parser.add_argument(
        "--batch-size", type=int, default=1024, help="rows of the global batch"
    )
    parser.add_argument(
        "--identities", type=words, default=list(map(str, IDENTITIES)), help="classes"
    )
    parser.add_argument(
        "--here", action="store_true", help="compile for this process's devices"
    )


def run(options: argparse.Namespace) -> None:
    """Compile, print and record."""
    numbers = list(map(int, options.identities))
    if options.here:
        json.dump(measure(options.batch_size, numbers), sys.stdout)
        return
    from benchmarks import harness

    rows = [
        row
        for chips in options.chips
        for row in _in_own_process(options, chips, options.batch_size)
    ]
    lines = [
        "| identities | chips | least | centers, moments | rest, rate 1 | rest, 0.1 |",
        "|---|---|---|---|---|---|",
    ]
    for whole, part in zip(rows[::2], rows[1::2], strict=True):
        lines.append(
            f"| {whole['identities']:,} | {whole['chips']} | "
            f"{whole['least_mib']:,.0f} | {whole['arguments_mib']:,.0f} | "
            f"{whole['temporary_mib']:,.0f} | {part['temporary_mib']:,.0f} |"
        )
    sys.stdout.write("\n".join(lines) + "\n")
    settings = {"batch_size": options.batch_size, "identities": numbers}
    harness.record("class_memory", settings, {"rows": rows})
