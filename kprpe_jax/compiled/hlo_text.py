"""Read a compiled program's text: what it multiplies, moves and sends in one run.

XLA's own count (`Compiled.cost_analysis`) has the body of a loop once, however often it
runs, and there is none without a device. Here loops count as often as they run.
"""

import math
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

_HEAD = re.compile(r"^(?P<entry>ENTRY )?%?(?P<name>[\w.\-]+) .*\{$")
_LINE = re.compile(
    r"^\s+(?P<root>ROOT )?%?(?P<name>[\w.\-]+) = (?P<type>.*?) (?P<kind>[a-z][\w\-]*)"
    r"\((?P<rest>.*)$"
)
_ARRAY = re.compile(r"\b(?:[suf]|bf|pred|f8e\w+?)(?P<bits>\d*)\[(?P<shape>[\d,]*)\]")
_CALLEES = re.compile(
    r"(?:to_apply|calls|(?:branch|true|false)_computations?)=(\{[^}]*\}|%?[\w.\-]+)"
)
_NAME = re.compile(r"%([\w.\-]+)")

# What no kernel runs for: names for what is there, or control.
_FREE = frozenset(
    "parameter constant tuple get-tuple-element bitcast while conditional call "
    "after-all partition-id replica-id opt-barrier".split()
)


class Instruction(NamedTuple):
    """A line of a computation.

    Attributes:
      name, kind: `add.3` is an `add`.
      type: of the result, as written.
      operands: names.
      line: all of it.
      root: is it the computation's result?
    """

    name: str
    kind: str
    type: str
    operands: tuple[str, ...]
    line: str
    root: bool


Computation = dict[str, Instruction]


class Program(NamedTuple):
    """A module.

    Attributes:
      computations: name -> its instructions, in the order in which they run.
      entry: name of the one that runs.
    """

    computations: dict[str, Computation]
    entry: str

    def runs(self) -> Iterator[tuple[Computation, int]]:
        """Every computation that runs, except inside of kernels, and how often.

        Of a conditional every branch counts, of a loop of unknown length one turn.
        """
        yield from self._runs(self.entry, 1)

    def _runs(self, name: str, times: int) -> Iterator[tuple[Computation, int]]:
        yield self.computations[name], times
        for one in self.computations[name].values():
            if one.kind == "while":
                count = re.search(r"known_trip_count\D*(\d+)", one.line)
                body = re.search(r"body=%?([\w.\-]+)", one.line)
                assert body
                yield from self._runs(body[1], times * int(count[1] if count else 1))
            elif one.kind in ("call", "conditional"):
                for callee in callees(one):
                    yield from self._runs(callee, times)


def parse(text: str) -> Program:
    """Read `Compiled.as_text()`."""
    computations: dict[str, Computation] = {}
    name = entry = ""
    for line in text.splitlines():
        head, found = _HEAD.match(line), _LINE.match(line)
        if found and name:
            computations[name][found["name"]] = Instruction(
                found["name"],
                found["kind"],
                found["type"],
                tuple(_NAME.findall(_inside(found["rest"]))),
                line,
                bool(found["root"]),
            )
        elif head:
            name = head["name"]
            computations[name] = {}
            entry = name if head["entry"] else entry
    return Program(computations, entry)


def source_lines(text: str) -> dict[int, str]:
    """Number of a `stack_frame_id` -> "FILE:LINE" that asked for the instruction.

    That is the innermost of its frames in this package, with the path in it; else the
    innermost of all, with the file's name.
    """
    tables: dict[str, dict[int, str]] = {}
    table = None
    for line in text.splitlines():
        if line in ("FileNames", "FunctionNames", "FileLocations", "StackFrames"):
            table = tables.setdefault(line, {})
        elif table is not None and (found := re.match(r"(\d+) (.*)", line)):
            table[int(found[1])] = found[2]
        elif line.strip():
            table = None
    frames, lines = tables.get("StackFrames", {}), {}
    for number in frames:
        chain, at = [], number
        while at in frames:
            place = tables["FileLocations"][_field(frames[at], "file_location_id")]
            path = tables["FileNames"][_field(place, "file_name_id")].strip('"')
            chain.append((path, _field(place, "line")))
            at = _field(frames[at], "parent_frame_id") - 1  # written from 1
        own = (x for x in chain if "/kprpe_jax/" in x[0])
        path, line = next(own, chain[0])
        inside = path.rpartition("/kprpe_jax/")[2]
        lines[number] = (
            f"{inside if inside != path else path.rpartition('/')[2]}:{line}"
        )
    return lines


def _field(text: str, name: str) -> int:
    found = re.search(rf"\b{name}=(\d+)", text)
    return int(found[1]) if found else 0


def callees(instruction: Instruction) -> list[str]:
    """Computations that it names, conditions of loops apart."""
    names = []
    for found in _CALLEES.findall(instruction.line):
        names += [part.strip(" %") for part in found.strip("{}").split(",")]
    return names


def arrays(type_text: str) -> list[tuple[int, tuple[int, ...]]]:
    """Bytes of a number and shape of every array in a type."""
    return [
        (
            max(1, int(found["bits"] or 8) // 8),
            tuple(map(int, filter(None, found["shape"].split(",")))),
        )
        for found in _ARRAY.finditer(type_text)
    ]


def size(type_text: str) -> int:
    """Bytes of a type's arrays."""
    return sum(width * math.prod(shape) for width, shape in arrays(type_text))


def kernels(program: Program) -> Iterator[tuple[Instruction, Computation, int]]:
    """Every instruction that is a kernel, where it stands, and how often it runs."""
    for computation, times in program.runs():
        for one in computation.values():
            if is_kernel(one):
                yield one, computation, times


def is_kernel(one: Instruction) -> bool:
    """Does something run for it, rather than name what is there?"""
    return one.kind not in _FREE and not one.kind.endswith("-done")


def matrix_flops(program: Program) -> float:
    """FLOPs of all matrix products in one run, two for a multiply-add.

    Not counted: convolutions, what a Pallas kernel multiplies, and elementwise work.
    """
    return _in_one_run(instruction_flops, program)


def instruction_flops(
    one: Instruction, computation: Computation, program: Program
) -> float:
    """FLOPs of the matrix products of an instruction, those inside of a fusion too."""
    if one.kind == "dot":
        dims = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", one.line)
    elif "__cublas" in one.line:
        dims = re.search(r'"lhs_contracting_dimensions":\[([\d,"]*)\]', one.line)
    else:
        return sum(
            instruction_flops(inner, program.computations[name], program)
            for name in (callees(one) if one.kind == "fusion" else ())
            for inner in program.computations[name].values()
        )
    assert dims
    (_, left), *_ = arrays(computation[one.operands[0]].type)
    (_, result), *_ = arrays(one.type)
    summed = (left[int(d)] for d in dims[1].replace('"', "").split(",") if d)
    return 2.0 * math.prod(result) * math.prod(summed)


def bytes_moved(program: Program) -> float:
    """Bytes that all kernels of one run read and write, caches not counted.

    A kernel reads each operand once and writes its result once. Of an array that it
    only takes slices or rows of it reads those, and of one that it changes in place it
    writes the change.
    """
    return _in_one_run(instruction_bytes, program)


def _in_one_run(
    count: Callable[[Instruction, Computation, Program], float], program: Program
) -> float:
    """The sum of a kernel's number over all kernels, as often as each runs."""
    return sum(
        times * count(one, computation, program)
        for one, computation, times in kernels(program)
    )


def instruction_bytes(
    one: Instruction, computation: Computation, program: Program
) -> float:
    """Bytes that one kernel reads and writes."""
    types = {name: computation[name].type for name in one.operands}
    if one.kind == "fusion":
        inside = program.computations[callees(one)[0]]
        return _fusion_bytes(inside)
    if one.kind in ("dynamic-slice", "gather"):
        return 2 * size(one.type)
    if one.kind == "dynamic-update-slice":
        return 2 * size(types[one.operands[1]])
    if one.kind == "scatter":
        return 3 * size(types[one.operands[2]])
    if one.kind == "custom-call":  # scratch memory comes as bytes at the end
        return size(re.sub(r"\bs8\[\d+\]", "", one.type)) + sum(
            map(size, types.values())
        )
    if one.kind.endswith("-start"):  # the result holds the operands again
        return size(one.type)
    return size(one.type) + sum(map(size, types.values()))


def _fusion_bytes(inside: Computation) -> float:
    total = 0.0
    for one in inside.values():
        if one.kind == "parameter":
            total += min(size(one.type), _read(one.name, inside))
        if one.root:
            total += _written(one, inside)
    return total


def _read(name: str, inside: Computation) -> float:
    """Bytes of an array that its users in a fusion read, at most all per user."""
    read = 0.0
    for user in inside.values():
        if name not in user.operands:
            continue
        if user.kind in ("bitcast", "reshape"):
            read += _read(user.name, inside)
        elif user.kind in ("dynamic-slice", "gather") and user.operands[0] == name:
            read += size(user.type)
        elif user.kind != "dynamic-update-slice" or user.operands[0] != name:
            read += size(inside[name].type)
    return read


def _written(one: Instruction, inside: Computation) -> float:
    if one.kind == "tuple":
        return sum(_written(inside[name], inside) for name in one.operands)
    if one.kind == "bitcast" and inside[one.operands[0]].kind != "parameter":
        return _written(inside[one.operands[0]], inside)
    if one.kind == "dynamic-update-slice":
        return size(inside[one.operands[1]].type)
    return size(one.type)


def _inside(text: str) -> str:
    """The part of "a, (b), c), more" before the parenthesis that closes."""
    depth = 1
    for index, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return text[:index]
    return text
