"""Compare the last line of each result file with the one before it.

    python -m benchmarks history [NAME ...]

Lines count as alike where machine, settings and device are the same; versions may
differ, and are shown where they do. A ratio is the new figure over the old one.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.harness import RESULTS

# What a machine is; the rest of its description are versions.
_MACHINE = ("device", "devices", "processor", "cores")
_NOISE = ("load_average",)  # of the settings
# What says how fast or how large something is, or holds numbers that do; in rows of a
# table the rest says which row it is.
_FIGURES = (
    *("items_per_s", "images_per_s", "queries_per_s", "images_per_processor_s"),
    *("median_s", "processor_s", "clock_s", "wall_s", "seconds", "time_ratio"),
    *("relative", "gflop", "tflop", "pallas_tflop", "gigabytes", "kernel_by_kernel_s"),
    *("sent", "least", "mib", "registers"),
)
_UNITS = ("_mib", "_bytes")  # that names of others end with


def compare(name: str) -> str:
    """Ratios of results/NAME.jsonl's last line to the newest earlier one like it.

    Returns: a line per figure; one that says so where there is nothing to compare.
    Raises: ValueError: no such results.
    """
    path = RESULTS / f"{name}.jsonl"
    if not path.is_file():
        known = sorted(p.stem for p in RESULTS.glob("*.jsonl"))
        raise ValueError(
            f"history: there are no results {name!r}; choose some of {', '.join(known)}"
        )
    rows = [json.loads(line) for line in path.read_text().splitlines() if line]
    new, earlier = rows[-1], [r for r in rows[:-1] if _alike(r, rows[-1])]
    if not earlier:
        return f"{name}: the first with this machine and these settings\n"
    old = earlier[-1]
    changed = [
        f"{key} {old['machine'].get(key)} -> {value}"
        for key, value in new["machine"].items()
        if key not in _MACHINE and old["machine"].get(key) != value
    ]
    since = f"since {old['date']}" + (f" ({', '.join(changed)})" if changed else "")
    before = dict(figures(old["results"]))
    lines = [f"{name}, {since}: new / old"]
    for key, value in figures(new["results"]):
        if before.get(key):
            lines.append(f"  {key:60} {value / before[key]:6.3f}  {value:.5g}")
    return "\n".join(lines) + "\n"


def figures(
    results: Mapping[str, Any], path: tuple[str, ...] = (), *, counts: bool = False
) -> Iterator[tuple[str, float]]:
    """Names and values of all figures in nested results.

    Args:
      results: numbers, mappings, and lists of mappings, which are rows of a table.
      path: names that lead to them.
      counts: all numbers are figures, whatever their names.
    """
    for key, value in results.items():
        inside, figure = (*path, key), counts or _is_figure(key)
        if isinstance(value, Mapping):
            yield from figures(value, inside, counts=figure)
        elif isinstance(value, list):
            for row in (row for row in value if isinstance(row, Mapping)):
                yield from figures(row, (*path, *_row_name(row)), counts=figure)
        elif figure and isinstance(value, int | float):
            yield " ".join(inside), float(value)


def _is_figure(key: str) -> bool:
    return key in _FIGURES or key.endswith(_UNITS)


def _row_name(row: Mapping[str, Any]) -> list[str]:
    return [
        f"{key} {value}"
        for key, value in row.items()
        if not _is_figure(key) and not isinstance(value, Mapping | list)
    ]


def _alike(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    machines = ([row["machine"].get(key) for key in _MACHINE] for row in (a, b))
    settings = (
        {k: v for k, v in row["settings"].items() if k not in _NOISE} for row in (a, b)
    )
    return (
        len({json.dumps(x) for x in machines}) == 1
        and len({json.dumps(x, sort_keys=True) for x in settings}) == 1
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="results (all)")


def run(options: argparse.Namespace) -> None:
    """Print the comparison of these results, or of all."""
    for name in options.names or sorted(path.stem for path in RESULTS.glob("*.jsonl")):
        sys.stdout.write(compare(name))
