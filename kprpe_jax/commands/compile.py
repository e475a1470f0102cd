"""Compile a config's training step for TPUs or GPUs that need not be there.

    kprpe-jax compile --config kprpe_faces --topology v5e:16x16
    kprpe-jax compile --config kprpe_faces --topology v5p:8x8x4 --slices 2 \\
        --config.mesh.class=8 --config.data.batch_size=16384 --output step.json

Says what a chip would hold, compute, move and send in a step, and whether it fits, from
the program that the real compiler makes; nothing runs. TPUs need the extra [aot], GPUs
(h200:8) NVIDIA's plugins. No data set need exist, but where a task learns something
from one (set_fusion, pair_matching, joint_alignment).
"""

import argparse
import json
import sys
from collections.abc import Mapping
from typing import Any

from kprpe_jax.commands import options as shared
from kprpe_jax.core.paths import folder_is_there, write_text

TAKES_CONFIG = True
TAKES_BUCKETS = ("--output",)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--config", metavar="CONFIG", required=True, help="NAME[:ARG] or PATH[:ARG]"
    )
    parser.add_argument(
        "--topology",
        metavar="NAME",
        required=True,
        help="v4, v5e, v5p or v6e with its arrangement, such as v5e:16x16, v5p:8x8x4; "
        "or GPUs, such as h200:8",
    )
    parser.add_argument(
        "--slices",
        metavar="N",
        type=shared.positive,
        default=1,
        help="of TPUs, each of this topology (1)",
    )
    parser.add_argument(
        "--step-only", action="store_true", help="leave the evaluation out"
    )
    shared.add_output(parser, "JSON file of the same figures, and more")


def run(options: argparse.Namespace) -> None:
    """Run the compile command."""
    output = options.output
    if output and not folder_is_there(output):
        raise ValueError(f"--output {output} lies in no folder; make it first")
    from kprpe_jax.compiled.topology import describe_topology

    topology = describe_topology(options.topology, slices=options.slices)
    from kprpe_jax.compiled.report import compile_traced
    from kprpe_jax.compiled.step import trace_evaluation, trace_step
    from kprpe_jax.core.mesh import make_mesh
    from kprpe_jax.layers.platforms import kernels_for
    from kprpe_jax.training.config import check_config, load_config
    from kprpe_jax.training.sharding import bytes_per_device

    config = load_config(options.config, options.overrides)
    check_config(config)
    mesh = make_mesh(config.mesh, topology.devices)
    with kernels_for(topology.platform):
        step = trace_step(config, mesh)
        evaluation = None
        if not options.step_only:
            evaluation = trace_evaluation(config, step, mesh)
        about = {
            "topology": options.topology,
            "slices": options.slices,
            "mesh": dict(mesh.shape),
            "batch_size": config.data.batch_size,
            "chip_memory_bytes": topology.chip.memory,
        }
        _say(f"compiling the step for {mesh.size} chips ...")
        kept = {"topology": topology, "chips": mesh.size}
        facts = compile_traced(
            step.traced, state_bytes=bytes_per_device(step.state), **kept
        )
        _show("training step", facts, topology.chip.memory)
        if evaluation is not None:
            size = bytes_per_device(step.task.recognizer(step.state).variables)
            facts["evaluation"] = compile_traced(evaluation, state_bytes=size, **kept)
            _show("evaluation", facts["evaluation"], topology.chip.memory)
    if output:
        write_text(output, json.dumps({**facts, **about}, indent=2) + "\n")
        _say(f"written to {output}")


def _show(title: str, facts: Mapping[str, Any], memory: int) -> None:
    """Print what a program needs and does."""
    lines = [
        f"{title}, per chip: {'fits' if facts['fits'] else 'DOES NOT FIT'}",
        f"  state            {_gib(facts['state_bytes'])}",
        f"  temporary        {_gib(facts['temporary_bytes'])} of {_gib(memory)}",
        f"  FLOPs            {facts['flops'] / 1e9:,.0f} GFLOP",
    ]
    if "bytes_accessed" in facts:
        own = facts["compiler_bytes_accessed"]
        beside = f" (the compiler counts {own / 1e9:,.1f}, loops once)" if own else ""
        lines += [f"  bytes accessed   {facts['bytes_accessed'] / 1e9:,.1f} GB{beside}"]
        for kind, sent in facts["sent_bytes"].items():
            waits = facts["waiting_bytes"].get(kind, 0.0)
            lines += [
                f"  {kind:<16} {sent / 1e6:,.1f} MB sent, {waits / 1e6:,.1f} MB of it "
                "while nothing else runs"
            ]
        for far in facts["between_slices"]:
            size, kind = far["bytes"] / 1e6, far["collective"]
            lines += [f"  between slices   {size:,.3f} MB  {kind}, {far['source']}"]
        for part, cycles in facts["cycles"].items():
            blank = facts["without_estimate"].get(part, 0)
            more = f" and {blank} kernels without an estimate" if blank else ""
            lines += [f"  cycles           {cycles / 1e6:6.2f} M  {part}{more}"]
        for buffer in facts["largest_buffers"]:
            source = buffer["source"] or buffer["operation"]
            lines += [f"  buffer           {_gib(buffer['bytes'])}  {source}"]
    lines += [f"  compiled in      {facts['compile_seconds']:.0f} s"]
    _say("\n".join(lines))


def _gib(size: float) -> str:
    return f"{size / 2**30:,.2f} GiB"


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
