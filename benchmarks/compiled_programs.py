"""What a change did to programs for TPUs: compile again, compare with references.

    python -m benchmarks compiled_programs [--only recipe]
    python -m benchmarks compiled_programs --update

Needs the extra [aot]. Each of PROGRAMS is compiled by `kprpe-jax compile`, and what
differs from benchmarks/compiled/NAME.json is printed with its ratio: memory, FLOPs,
bytes read and written, bytes sent by collective, cycles, per chip. --update writes the
files anew, to be committed with the change that moved them. A ratio fails nothing.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from kprpe_jax.commands.options import words

REFERENCES = pathlib.Path(__file__).parent / "compiled"
LEAST = 0.005  # differences below are not told
KEPT = (
    "fits state_bytes temporary_bytes chip_memory_bytes flops bytes_accessed "
    "sent_bytes between_slices cycles evaluation"
).split()

# Options of `kprpe-jax compile`: small programs in half a minute each, then the recipe.
PROGRAMS: dict[str, tuple[str, ...]] = {
    "digits": ("--config=digits_recognition", "--topology=v5e:2x2"),
    "digits_two_slices": (
        "--config=digits_recognition",
        "--topology=v5e:2x2",
        "--slices=2",
        "--step-only",
        "--config.mesh.data=4",
        "--config.mesh.class=2",
    ),
    "recipe": (
        "--config=kprpe_faces:webface4m",
        "--topology=v5e:16x16",
        "--step-only",
        "--config.mesh.data=32",
        "--config.mesh.class=8",
        "--config.data.batch_size=32768",
    ),
}


def compile_program(arguments: Sequence[str]) -> dict[str, Any]:
    """Run `kprpe-jax compile`; what its --output holds.

    A process of its own: a compiler describes devices once.

    Raises: ValueError: it failed; its last line.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "facts.json")
        command = [sys.executable, "-m", "kprpe_jax", "compile", *arguments]
        done = subprocess.run(
            [*command, f"--output={path}"],
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            last = (done.stderr.strip() or "no word").splitlines()[-1]
            raise ValueError(
                f"{' '.join(command[2:])} failed: {last.removeprefix('error: ')}"
            )
        return json.loads(path.read_text())


def flatten(facts: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Numbers of nested facts, "sent_bytes all-reduce" -> 1e6."""
    found: dict[str, float] = {}
    for name, value in facts.items():
        if isinstance(value, Mapping):
            found |= flatten(value, f"{prefix}{name} ")
        elif isinstance(value, int | float):  # fits counts as 0 or 1
            found[prefix + name] = float(value)
    return found


def compare(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """A line for every number that differs by LEAST or more."""
    old, new = flatten(before), flatten(now)
    lines = []
    for name in sorted(old.keys() | new.keys()):
        a, b = old.get(name, 0.0), new.get(name, 0.0)
        if abs(a - b) > LEAST * max(abs(a), abs(b)):
            ratio = f"{b / a:.3f}" if a else "new"
            lines.append(f"  {name:<44} {a:>16,.0f} -> {b:>16,.0f}  {ratio}")
    return lines


def kept(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts that a reference holds: no times, no lines of code."""
    found = {name: facts[name] for name in KEPT if name in facts}
    if "between_slices" in found:
        total: Counter[str] = Counter()
        for one in found["between_slices"]:
            total[one["collective"]] += one["bytes"]
        found["between_slices"] = dict(total)
    if "evaluation" in found:
        found["evaluation"] = kept(found["evaluation"])
    return found


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--only", type=words, default=list(PROGRAMS), help="names, by commas"
    )
    parser.add_argument(
        "--update", action="store_true", help="write the references anew"
    )


def run(options: argparse.Namespace) -> None:
    """Compile and compare."""
    for name in options.only:
        if name not in PROGRAMS:
            raise ValueError(
                f"--only: must name some of {', '.join(PROGRAMS)}; got {name}"
            )
    for name in options.only:
        path = REFERENCES / f"{name}.json"
        facts = kept(compile_program(PROGRAMS[name]))
        facts["versions"] = {x: version(x) for x in ("jax", "jaxlib", "libtpu")}
        before = json.loads(path.read_text()) if path.is_file() else None
        if before is None:
            lines = ["  no reference yet"]
        else:
            lines = compare(before, facts) or ["  as before"]
            if before["versions"] != facts["versions"]:
                lines.append(f"  {before['versions']} -> {facts['versions']}")
        sys.stdout.write("\n".join([name, *lines]) + "\n")
        sys.stdout.flush()
        if options.update:
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n")
