"""What a GPU would be asked to do, from programs compiled for one that is not there.

    python -m benchmarks compiled_for_gpu [--card h200 --batches 128,1024]
    python -m benchmarks compiled_for_gpu --tables

Compiled, not run: the training step (augmentation, ViT, AdaFace over all class centers,
AdamW) and inference, by encoding and attention. Memory is what XLA plans. From FLOPs of
the matrix products and bytes that kernels read and write come times that the card
cannot beat, and so the most images a second; real kernels reach neither peak. `kernel
by kernel` takes the larger of both for every kernel, as one runs after another. Bytes
that stay in the card's cache count, too.

Needs packages that `gpu_cards` names. Appends to results/compiled_for_gpu.jsonl, where
lines of the same settings add up; --tables prints them for docs/performance.md.
"""

import argparse
import re
import sys
from typing import Any

from benchmarks.harness import record, recorded
from kprpe_jax.commands.options import words
from kprpe_jax.compiled import gpu_cards, hlo_text
from kprpe_jax.core.chips import GPUS

VARIANTS = {
    "plain": dict(encoding="plain"),
    "irpe": dict(encoding="irpe"),
    "kprpe": dict(),
    "kprpe pallas": dict(attention="pallas"),
}
TARGETS = {"train": 6_000, "infer": 20_000}  # images/s, of the project

# What a kernel belongs to, by the first that its place in the program matches.
PARTS = {
    "kept for backward": r"dynamic_(update_)?(index_in_dim|slice)|broadcast",
    "attention": r"/attention/(?!qkv|proj)|pallas",
    "products with weights": r"/attention/(qkv|proj)|/mlp/|/patch_embed/|/head/",
    "norms": r"/norm\d?/",
}


def compile_mode(
    options: argparse.Namespace, mode: str, variant: str, batch: int, devices: list[Any]
) -> dict[str, Any]:
    """Compile one program; `examine` it."""
    import jax

    from benchmarks import whole_step
    from kprpe_jax.compiled.step import batch_shapes
    from kprpe_jax.core.mesh import AXES, batch_sharding, make_mesh
    from kprpe_jax.layers.platforms import kernels_for
    from kprpe_jax.tasks import networks, recognition

    config = whole_step.make_config(
        preset=options.preset,
        identities=options.identities,
        dtype=options.dtype,
        **VARIANTS[variant] | {"scan": options.scan},
    )
    mesh = make_mesh(dict.fromkeys(AXES, 1), devices)
    with kernels_for("gpu"):
        traced, state, task = whole_step.trace_step(config, mesh, batch)
        if mode == "infer":
            model = networks.make_network(config, mesh)

            def infer(params, collections, images, keypoints):
                return recognition.embed(model, params, collections, images, keypoints)

            rows, place = batch_shapes(config, task, batch), batch_sharding(mesh)
            images, keypoints = (
                jax.ShapeDtypeStruct(x.shape, "float32", sharding=place)
                for x in (rows["image"], rows["keypoints"])
            )
            traced = jax.jit(infer).trace(
                {"backbone": state.params["backbone"]},
                state.collections,
                images,
                keypoints,
            )
        compiled = traced.lower().compile(compiler_options=gpu_cards.COMPILER_OPTIONS)
    return examine(traced, compiled)


def examine(traced: Any, compiled: Any) -> dict[str, Any]:
    """Memory, FLOPs, bytes and the bound kernel by kernel of a program.

    Returns: MiB by kind; tflop, pallas_tflop (part of it) and gigabytes in all and by
      part; `kernels`, [FLOPs, bytes] of each that matters, as often as it runs.
    """
    from kprpe_jax.core.flops import traced_flops

    memory = compiled.memory_analysis()
    sizes = {
        "arguments_mib": memory.argument_size_in_bytes,
        "temporary_mib": memory.temp_size_in_bytes,
        "output_mib": memory.output_size_in_bytes - memory.alias_size_in_bytes,
    }
    sizes["peak_mib"] = sum(sizes.values())
    program = hlo_text.parse(compiled.as_text())
    flops = traced_flops(traced.jaxpr)
    in_kernels = flops - traced_flops(traced.jaxpr, pallas=False)
    parts = dict.fromkeys((*PARTS, "other"), 0.0)
    times, pallas_bytes = dict.fromkeys(GPUS, 0.0), 0.0
    for one, place, turns in hlo_text.kernels(program):
        moved = turns * hlo_text.instruction_bytes(one, place, program)
        parts[part_of(one)] += moved
        if "xla.gpu.triton" in one.line:
            pallas_bytes += moved
            continue
        own = turns * hlo_text.instruction_flops(one, place, program)
        for name in times:
            times[name] += least_time(own, moved, name)
    for name in times:
        times[name] += least_time(in_kernels, pallas_bytes, name)
    return {
        **{name: value / 2**20 for name, value in sizes.items()},
        "tflop": flops / 1e12,
        "pallas_tflop": in_kernels / 1e12,
        "gigabytes": sum(parts.values()) / 1e9,
        "gigabytes_by_part": {name: value / 1e9 for name, value in parts.items()},
        "kernel_by_kernel_s": times,
    }


def part_of(one: hlo_text.Instruction) -> str:
    """What a kernel belongs to."""
    place = re.search(r'op_name="([^"]*)"', one.line)
    name = f"{place[1]}/" if place else one.name
    return next(
        (part for part, form in PARTS.items() if re.search(form, name)), "other"
    )


def least_time(flops: float, moved: float, card: str) -> float:
    """Seconds that a kernel takes at least on a card."""
    limits = GPUS[card]
    return max(flops / limits.bfloat16, moved / limits.bandwidth)


def tables(settings: dict[str, Any]) -> list[str]:
    """What was recorded with these settings, as Markdown."""
    card = GPUS[settings["card"]]
    results, lines = all_results(settings), []
    for mode, target in TARGETS.items():
        rows = {
            tuple(key.split(", ")[1:]): row
            for key, row in results.items()
            if key.startswith(mode)
        }
        heads = ("encoding", "batch", "peak GiB", "temporary", "TFLOP", "GB")
        bounds = ("by FLOPs", "by bytes", "kernel by kernel")
        lines += [f"\n{mode}, aimed at {target:,} images/s\n", *_head(*heads, *bounds)]
        for (variant, batch), row in rows.items():
            seconds = (
                1e12 * row["tflop"] / card.bfloat16,
                1e9 * row["gigabytes"] / card.bandwidth,
                row["kernel_by_kernel_s"][settings["card"]],
            )
            most = " | ".join(f"{int(batch) / s:,.0f}" for s in seconds)
            lines.append(
                f"| {variant} | {batch} | {row['peak_mib'] / 1024:.1f} | "
                f"{row['temporary_mib'] / 1024:.1f} | {row['tflop']:.1f} | "
                f"{row['gigabytes']:.0f} | {most} |"
            )
        names = (*PARTS, "other")
        lines += [f"\n{mode}, MB an image\n", *_head("encoding", "batch", *names)]
        for (variant, batch), row in rows.items():
            parts = row["gigabytes_by_part"]
            cells = (f"{1000 * parts[n] / int(batch):,.0f}" for n in names)
            lines.append(f"| {variant} | {batch} | {' | '.join(cells)} |")
    return lines


def _head(*names: str) -> list[str]:
    return [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]


def all_results(settings: dict[str, Any]) -> dict[str, Any]:
    """What was recorded with these settings; of the same key the newest.

    Raises: ValueError: there is none.
    """
    found: dict[str, Any] = {}
    for line in recorded("compiled_for_gpu", settings):
        found |= line["results"]
    return dict(sorted(found.items(), key=lambda item: _order(item[0])))


def _order(key: str) -> tuple[Any, ...]:
    mode, variant, batch = key.split(", ")
    return mode, list(VARIANTS).index(variant), int(batch)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--card", choices=list(GPUS), default="h200", help="to compile for"
    )
    parser.add_argument("--preset", type=str, default="base", help="size of the ViT")
    parser.add_argument("--identities", type=int, default=205990, help="class centers")
    parser.add_argument("--dtype", type=str, default="bfloat16", help="compute type")
    parser.add_argument(
        "--scan",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="blocks in a loop, or one after another",
    )
    parser.add_argument(
        "--batches",
        type=words,
        default=["128", "256", "512", "1024"],
        help="images a step",
    )
    parser.add_argument(
        "--variants", type=words, default=list(VARIANTS), help="encodings"
    )
    parser.add_argument(
        "--modes", type=words, default=list(TARGETS), help="training step, inference"
    )
    parser.add_argument("--tables", action="store_true", help="print what was recorded")


def run(options: argparse.Namespace) -> None:
    """Compile, print and record."""
    kept = ("card", "preset", "identities", "dtype", "scan")
    settings = {name: getattr(options, name) for name in kept}
    if not options.tables:
        devices = gpu_cards.describe_devices(GPUS[options.card])
        for mode in options.modes:
            for batch in map(int, options.batches):
                for variant in options.variants:
                    key = f"{mode}, {variant}, {batch}"
                    result = compile_mode(options, mode, variant, batch, devices)
                    record("compiled_for_gpu", settings, {key: result})
                    sys.stdout.write(f"{key}\n")
                    sys.stdout.flush()
    sys.stdout.write("\n".join(tables(settings)) + "\n")
