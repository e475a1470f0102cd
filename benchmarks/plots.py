"""Pictures of docs/performance.md from the newest results.

python -m benchmarks plots [--output docs/figures]
"""

import argparse
import pathlib
from typing import Any

import matplotlib

matplotlib.use("Agg")  # files only, on any machine
import matplotlib.pyplot as plt

from benchmarks.harness import recorded
from benchmarks.history import figures

FIGURES = pathlib.Path("docs/figures")


def draw_all(output: pathlib.Path) -> list[pathlib.Path]:
    """Draw every picture.

    Args:
      output: folder; made if missing.
    Returns: the files.
    Raises: ValueError: results that are not there.
    """
    output.mkdir(parents=True, exist_ok=True)
    pictures = {
        "scale": plot_traffic,
        "class_memory": plot_class_memory,
        "vit_position": plot_encodings,
    }
    paths = []
    for name, plot in pictures.items():
        figure, axis = plt.subplots(figsize=(5.5, 3.2), layout="constrained")
        plot(axis, fullest_line(name))
        axis.grid(alpha=0.3, axis="y")
        axis.legend(fontsize=8)
        paths.append(output / f"performance_{name}.png")
        figure.savefig(paths[-1], dpi=130)
        plt.close(figure)
    return paths


def fullest_line(name: str) -> dict[str, Any]:
    """The newest line of those with the most figures; a suite's small runs have fewer.

    Raises: ValueError: there is none.
    """
    lines = reversed(recorded(name))
    return max(lines, key=lambda line: len(list(figures(line["results"]))))


def plot_traffic(axis: plt.Axes, line: dict[str, Any]) -> None:
    """What a device sends in a step, beside the least, by mesh."""
    meshes = line["results"]
    places = range(len(meshes))
    for shift, key, label in ((-0.2, "sent_mib", "sent"), (0.2, "least_mib", "least")):
        sizes = [sum(row[key].values()) for row in meshes.values()]
        axis.bar([x + shift for x in places], sizes, 0.4, label=label)
    axis.set_xticks(list(places), [name.replace("x", "·") for name in meshes])
    axis.set_xlabel("devices: data · fsdp · class")
    axis.set_ylabel("MiB a device and step")


def plot_class_memory(axis: plt.Axes, line: dict[str, Any]) -> None:
    """What the class centers' part of a step needs, by devices."""
    rows = line["results"]["rows"]
    for identities in sorted({row["identities"] for row in rows}):
        for rate, style in ((1.0, "-"), (0.1, "--")):
            points = [
                (row["chips"], (row["arguments_mib"] + row["temporary_mib"]) / 1024)
                for row in rows
                if (row["identities"], row["sample_rate"]) == (identities, rate)
            ]
            label = f"{identities:,} people" if rate == 1 else None
            color = axis.lines[-1].get_color() if rate < 1 else None
            x, y = zip(*points, strict=True)
            axis.plot(x, y, style, marker="o", markersize=3, label=label, color=color)
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    chips = sorted({row["chips"] for row in rows})
    axis.set_xticks(chips, map(str, chips))
    axis.set_xlabel("devices (dashed: 10 % of the centers sampled)")
    axis.set_ylabel("GiB a device")


def plot_encodings(axis: plt.Axes, line: dict[str, Any]) -> None:
    """Time of each position encoding over that of none in the attention."""
    modes = line["results"]
    names = list(modes["train"])
    titles = {"train": "training step", "infer": "inference"}
    for shift, (mode, title) in zip((-0.2, 0.2), titles.items(), strict=True):
        ratios = [modes[mode][name]["time_ratio"] for name in names]
        axis.bar([x + shift for x in range(len(names))], ratios, 0.4, label=title)
    axis.set_xticks(range(len(names)), [name.replace("_", "\n") for name in names])
    settings = line["settings"]
    axis.set_xlabel(f"ViT {settings['preset']}, {settings['batch_size']} images")
    axis.set_ylabel("time, plain = 1")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--output", type=pathlib.Path, default=FIGURES, help="folder (docs/figures)"
    )


def run(options: argparse.Namespace) -> None:
    """Draw."""
    draw_all(options.output)
