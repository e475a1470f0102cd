"""Bytes that devices send each other in a compiled program, and the least they must."""

import math
import re
from collections import Counter
from collections.abc import Iterator

from kprpe_jax.compiled import hlo_text
from kprpe_jax.compiled.hlo_text import arrays

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


def sent_by(program: hlo_text.Program) -> tuple[dict[str, float], dict[str, float]]:
    """Bytes that a device sends in one run, by collective, loops as often as they run.

    A TPU's program has a collective that runs beside others inside of fusions, once
    where it starts and again where it ends; it is counted once.

    Returns: of all; of those during which nothing else runs.
    """
    sent: Counter[str] = Counter()
    waiting: Counter[str] = Counter()
    for computation, times in program.runs():
        channels: dict[str, tuple[str, float, bool]] = {}
        for one in computation.values():
            beside = one.kind.endswith("-start") and '"is_sync":true' not in one.line
            for inner, fused in _collectives(one, program):
                channel = re.search(r"channel_id=(\d+)", inner.line)
                key = f"{inner.kind} {channel[1]}" if channel else inner.name
                for kind, size in one_collective(inner.line).items():
                    channels[key] = kind, size, beside or fused
        for kind, size, beside in channels.values():
            sent[kind] += times * size
            if not beside:
                waiting[kind] += times * size
    return dict(sent), dict(waiting)


def _collectives(
    one: hlo_text.Instruction, program: hlo_text.Program, fused: bool = False
) -> Iterator[tuple[hlo_text.Instruction, bool]]:
    """Collectives of an instruction, and whether they are inside of a fusion."""
    if _COLLECTIVE.search(one.line):
        yield one, fused
    elif one.kind in ("fusion", "async-start"):
        for name in hlo_text.callees(one):
            for inner in program.computations.get(name, {}).values():
                yield from _collectives(inner, program, fused=True)


def sent_to_slices(
    program: hlo_text.Program,
) -> Iterator[tuple[str, hlo_text.Instruction, float]]:
    """What a device hands to the network between TPU slices in one run.

    Chips of a slice add up first; then each hands over its share, in a transfer of its
    own, which runs beside what follows.

    Yields: kind of collective; the instruction whose result it is, the nearest that
      knows where it comes from; bytes, loops as often as they run.
    """
    for computation, times in program.runs():
        for one in computation.values():
            found = re.search(r'_xla_megascale_transfer_type="(\w+)"', one.line)
            if one.kind != "send" or found is None:
                continue
            width, shape = arrays(one.type)[0]
            source = one
            while "metadata=" not in source.line and source.operands:
                source = computation[source.operands[0]]
            kind = found[1].lower().replace("_", "-")
            yield kind, source, times * width * math.prod(shape)


def one_collective(line: str) -> dict[str, float]:
    """`collective_bytes` of one line, of any collective."""
    found = _COLLECTIVE.search(line)
    if found and found["kind"] in ("collective-permute", "all-to-all"):
        parts = arrays(found["result"])
        if found["start"]:
            parts = parts[: len(parts) // 2] or parts
        size = sum(width * math.prod(shape) for width, shape in parts)
        if found["kind"] == "all-to-all":
            n = _group_size(found["rest"])
            size *= (n - 1) / n
        return {found["kind"]: size}
    return collective_bytes(line)


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
    gradient comes back; the gradient of the centers' slots is summed over `data`.
    """
    rows = batch // data
    share, replicas = (classes - 1) / classes, (data - 1) / data
    return {
        "embeddings": share * rows * (dim + 1) * 4,  # with their labels
        "their gradient": share * rows * dim * 4,
        "softmax": 2 * share * rows * 4 * 3,
        "gradient of centers": 2 * replicas * slots * dim * 4,
    }
