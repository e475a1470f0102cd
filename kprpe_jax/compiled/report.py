"""What one chip would hold, compute, move and send in one run of a program."""

import math
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import jax

from kprpe_jax.compiled import hlo_text
from kprpe_jax.compiled.collectives import sent_by, sent_to_slices
from kprpe_jax.compiled.topology import Topology
from kprpe_jax.core.flops import traced_flops

# What an instruction is part of, by the first that its place in the program matches.
PARTS = {
    "augmentation": r"augment",
    "class centers": r"class_centers",
    "patch embedding": r"patch_embed",
    "attention": r"attention|attn",
    "MLP": r"/mlp/",
    "head": r"/head/",
    "optimizer": r"optimizer",
}
LARGEST = 8  # buffers that are listed


def compile_traced(
    traced: jax.stages.Traced, topology: Topology, *, chips: int, state_bytes: float
) -> dict[str, Any]:
    """Compile a program and say what it needs and does, per chip.

    Args:
      traced: for a mesh of the topology's devices.
      topology: the devices.
      chips: of the mesh.
      state_bytes: of the program's state, per chip.
    Returns: JSON values. Always: fits; state_bytes; temporary_bytes; flops, of products
      and convolutions that the program asks for; compile_seconds. Where it fits:
      bytes_accessed, read and written by all kernels, loop bodies as often as they run;
      compiler_bytes_accessed, the compiler's own count, loop bodies once; sent_bytes
      {collective: bytes}; waiting_bytes, the part of it that nothing overlaps;
      between_slices, what chips hand to the network between slices, by line of code;
      largest_buffers; cycles {part: the compiler's estimate}, and without_estimate
      {part: instructions that have none}.
    """
    start = time.monotonic()
    facts: dict[str, Any] = {
        "state_bytes": int(state_bytes),
        "flops": traced_flops(traced.jaxpr) / chips,
    }
    try:
        compiled = traced.lower(lowering_platforms=_platforms(topology)).compile(
            compiler_options=dict(topology.compiler_options)
        )
    except jax.errors.JaxRuntimeError as error:
        temporary = _temporary_bytes(str(error), state_bytes)
        if temporary is None:
            raise
        return {
            "fits": False,
            **facts,
            "temporary_bytes": int(temporary),
            "compile_seconds": time.monotonic() - start,
        }
    memory, text = compiled.memory_analysis(), compiled.as_text()
    program, sources = hlo_text.parse(text), hlo_text.source_lines(text)
    output = memory.output_size_in_bytes - memory.alias_size_in_bytes
    held = memory.argument_size_in_bytes + memory.temp_size_in_bytes + output
    cycles, blank = _cycles(program)
    sent, waiting = sent_by(program)
    cost = compiled.cost_analysis() or {}
    return {
        "fits": held <= topology.chip.memory,
        **facts,
        "temporary_bytes": memory.temp_size_in_bytes,
        "bytes_accessed": hlo_text.bytes_moved(program),
        "compiler_bytes_accessed": cost.get("bytes accessed"),
        "sent_bytes": sent,
        "waiting_bytes": waiting,
        "between_slices": list(_between_slices(program, sources)),
        "largest_buffers": list(_largest(program, sources)),
        "cycles": cycles,
        "without_estimate": blank,
        "compile_seconds": time.monotonic() - start,
    }


def _platforms(topology: Topology) -> tuple[str]:
    return ("cuda" if topology.platform == "gpu" else topology.platform,)


def _temporary_bytes(message: str, state_bytes: float) -> float | None:
    """What a program that doesn't fit needs beside its state, by the compiler."""
    unit = r"([\d.]+)([KMGT])"
    total = re.search(rf"Used {unit} of [\d.]+[KMGT] hbm", message)
    alone = re.search(rf"required for HLO temporaries \({unit}\)", message)
    found = total or alone
    if found is None:
        return None
    size = float(found[1]) * 2 ** (10 * (1 + "KMGT".index(found[2])))
    return max(size - state_bytes, 0) if total else size


def part_of(one: hlo_text.Instruction) -> str:
    """What an instruction is part of: of PARTS, "collectives" or "other"."""
    if re.search(r"all-|reduce-scatter|collective|AsyncCollective", one.kind):
        return "collectives"
    if "AsyncCollective" in one.line or "async_collective" in one.line:
        return "collectives"
    name = re.search(r'op_name="([^"]*)"', one.line)
    place = name[1] if name else ""
    return next(
        (part for part, form in PARTS.items() if re.search(form, place)), "other"
    )


def _cycles(program: hlo_text.Program) -> tuple[dict[str, float], dict[str, int]]:
    """Estimated cycles by part, loops as often as they run; kernels that have none."""
    cycles: Counter[str] = Counter()
    blank: Counter[str] = Counter()
    for one, _, times in hlo_text.kernels(program):
        found = re.search(r'"estimated_cycles":"(\d+)"', one.line)
        if found:
            cycles[part_of(one)] += times * int(found[1])
        elif one.kind in _COSTLY:
            blank[part_of(one)] += times
    return dict(cycles.most_common()), dict(blank.most_common())


def _between_slices(
    program: hlo_text.Program, sources: Mapping[int, str]
) -> Iterator[dict[str, Any]]:
    """What slices exchange, the largest first, of the same line of code together."""
    total: Counter[tuple[str, str]] = Counter()
    for kind, one, size in sent_to_slices(program):
        total[kind, _source(one, sources) or _operation(one)] += size
    for (kind, source), size in total.most_common():
        yield {"collective": kind, "bytes": size, "source": source}


_COSTLY = ("fusion", "custom-call", "scatter", "gather", "sort", "convolution")


def _largest(
    program: hlo_text.Program, sources: Mapping[int, str]
) -> Iterator[dict[str, Any]]:
    """The largest arrays that kernels write, each with the line that asked for it."""
    seen: dict[tuple[int, str], hlo_text.Instruction] = {}
    for one, _, _ in hlo_text.kernels(program):
        for width, shape in hlo_text.arrays(one.type):
            source = _source(one, sources)
            seen.setdefault((width * math.prod(shape), source), one)
    for (size, source), one in sorted(seen.items(), key=lambda x: -x[0][0])[:LARGEST]:
        yield {
            "bytes": size,
            "source": source,
            "operation": _operation(one),
            "type": one.type[:100],
        }


def _source(one: hlo_text.Instruction, sources: Mapping[int, str]) -> str:
    """The line of code that asked for it; "" = unknown."""
    frame = re.search(r"stack_frame_id=(\d+)", one.line)
    return sources.get(int(frame[1]), "") if frame else ""


def _operation(one: hlo_text.Instruction) -> str:
    """Its place in the traced program, or what it is."""
    name = re.search(r'op_name="([^"]*)"', one.line)
    return name[1] if name else one.kind
