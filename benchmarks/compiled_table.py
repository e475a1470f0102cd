"""The largest batch that fits a TPU, by network, topology and mesh: compiled, not run.

    python -m benchmarks compiled_table [--only ViT-B] [--minutes 60]
    python -m benchmarks compiled_table --table

Needs the extra [aot]. Images a chip go up or down in powers of two until one fits and
its double does not. Every program that is compiled is a line of
benchmarks/results/compiled_table.jsonl, and none is compiled twice: a run that was
stopped goes on where it was. --table prints what there is, in Markdown.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from benchmarks.compiled_programs import KEPT, compile_program
from benchmarks.harness import RESULTS, record, recorded

NAME = "compiled_table"


class Row(NamedTuple):
    """A network on a mesh.

    Attributes:
      network: as the table names it.
      config: NAME[:ARG].
      topology, slices: of `kprpe-jax compile`.
      mesh: data, fsdp, class.
      start: images a chip of the first try.
      fields: further overrides, such as "model.dtype='bfloat16'".
    """

    network: str
    config: str
    topology: str
    mesh: tuple[int, int, int]
    start: int
    fields: tuple[str, ...] = ()
    slices: int = 1

    def settings(self, images: int) -> dict[str, Any]:
        """What a compiled program is made of, as JSON gives it back."""
        left_out = ("network", "start")
        fields = {n: x for n, x in self._asdict().items() if n not in left_out}
        return json.loads(json.dumps({**fields, "images_per_chip": images}))

    def arguments(self, images: int) -> list[str]:
        """Of `kprpe-jax compile`."""
        data, fsdp, classes = self.mesh
        batch = images * data * fsdp * classes
        return [
            f"--config={self.config}",
            f"--topology={self.topology}",
            f"--slices={self.slices}",
            "--step-only",
            f"--config.mesh.data={data}",
            f"--config.mesh.fsdp={fsdp}",
            f"--config.mesh.class={classes}",
            f"--config.data.batch_size={batch}",
            *(f"--config.{field}" for field in self.fields),
        ]


_RECIPE = "kprpe_faces:webface4m"
_MILLIONS = ("data.num_classes=2000000",)
_IR100 = (
    "model.dtype='bfloat16'",
    "data.num_classes=205990",
    "data.train_identities=()",
    "augmentation.preset='kprpe'",
    "loss.margin_kind='adaface'",
    "loss.sample_rate=0.6",
)


def _vit_b(fields: tuple[str, ...]) -> tuple[Row, ...]:
    name = f"ViT-B, KP-RPE, {'2,000,000' if fields else '205,990'} identities"
    return (
        Row(name, _RECIPE, "v5e:4x4", (2, 1, 8), 128, fields),
        Row(name, _RECIPE, "v5e:16x16", (32, 1, 8), 128, fields),
        Row(name, _RECIPE, "v6e:16x16", (32, 1, 8), 256, fields),
        Row(name, _RECIPE, "v5p:8x8x4", (32, 1, 8), 512, fields),
        Row(name, _RECIPE, "v5e:16x16", (64, 1, 8), 128, fields, 2),
    )


ROWS = (
    *_vit_b(()),
    *_vit_b(_MILLIONS),
    Row("ViT-S, KP-RPE", "kprpe_faces:ms1mv2", "v5e:4x4", (2, 1, 8), 128),
    Row("ViT-S, KP-RPE", "kprpe_faces:ms1mv2", "v6e:4x4", (2, 1, 8), 256),
    Row("iResNet-100", "lfw_iresnet:ir101", "v5e:4x4", (2, 1, 8), 128, _IR100),
    Row("iResNet-100", "lfw_iresnet:ir101", "v6e:4x4", (2, 1, 8), 256, _IR100),
)


def compiled(row: Row) -> dict[int, dict[str, Any]]:
    """Images a chip -> the facts of what was compiled of a row."""
    path = RESULTS / f"{NAME}.jsonl"
    found = {}
    for line in recorded(NAME) if path.is_file() else ():
        images = line["settings"]["images_per_chip"]
        if line["settings"] == row.settings(images):
            found[images] = line["results"]
    return found


def next_size(fits: Mapping[int, bool], start: int) -> int | None:
    """Images a chip to compile next; None = the largest that fits is known.

    Args:
      fits: images a chip -> whether they do, of what was compiled.
      start: the first try.
    """
    if not fits:
        return start
    if all(fits.values()):
        return 2 * max(fits)
    if not any(fits.values()):
        return min(fits) // 2 or None
    return None


def table() -> list[str]:
    """What was compiled, as Markdown; nothing of rows that were not."""
    heads = "network", "chips", "mesh", "images a chip"
    heads = (*heads, "state + temporary, GiB", "GB accessed", "MB sent")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in ROWS:
        found = compiled(row)
        fits = {images: facts["fits"] for images, facts in found.items()}
        best = max((images for images, yes in fits.items() if yes), default=None)
        if best is None:
            if fits and next_size(fits, row.start) is None:
                lines.append(_line(row, "not even 1", "", "", ""))
            continue
        facts, known = found[best], next_size(fits, row.start) is None
        held = facts["state_bytes"], facts["temporary_bytes"]
        state, temporary = (f"{size / 2**30:.2f}" for size in held)
        memory = facts["chip_memory_bytes"] / 2**30
        sent = sum(facts["sent_bytes"].values()) / 1e6
        between = sum(x["bytes"] for x in facts["between_slices"]) / 1e6
        told = f"{sent:,.0f}, {between:,.0f} between slices"
        lines.append(
            _line(
                row,
                f"{best}" if known else f"{best} or more",
                f"{state} + {temporary} of {memory:.0f}",
                f"{facts['bytes_accessed'] / 1e9:.1f}",
                told if row.slices > 1 else f"{sent:,.0f}",
            )
        )
    return lines


def _line(row: Row, *cells: str) -> str:
    chips = row.topology if row.slices == 1 else f"{row.slices} x {row.topology}"
    mesh = " × ".join(map(str, row.mesh))
    return f"| {' | '.join((row.network, chips, mesh, *cells))} |"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--only", type=str, default="", help="rows whose network starts with this"
    )
    parser.add_argument(
        "--minutes", type=float, default=600.0, help="after which none is started"
    )
    parser.add_argument("--table", action="store_true", help="print what there is")


def run(options: argparse.Namespace) -> None:
    """Compile what is missing; print the table."""
    jax.config.update("jax_platforms", "cpu")  # nothing runs
    until = time.monotonic() + 60 * options.minutes
    for row in () if options.table else ROWS:
        while row.network.startswith(options.only):
            found = compiled(row)
            fits = {images: facts["fits"] for images, facts in found.items()}
            images = next_size(fits, row.start)
            if images is None or time.monotonic() > until:
                break
            sys.stdout.write(f"{_line(row, str(images))}\n")
            sys.stdout.flush()
            facts = compile_program(row.arguments(images))
            kept = {name: facts[name] for name in KEPT if name in facts}
            record(NAME, row.settings(images), kept)
    sys.stdout.write("\n".join(table()) + "\n")
