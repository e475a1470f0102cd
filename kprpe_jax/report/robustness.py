"""Table and plots of accuracy under affine distortion, one line per encoding.

Source: KP-RPE, Fig. 1.
"""

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")  # files only, on any machine
import matplotlib.pyplot as plt
import numpy as np


class Run(NamedTuple):
    """One trained and evaluated network.

    Attributes:
      position: its encoding.
      seed: of its run.
      results: {"evaluator/metric": value} of the end.
      curves: rows of metrics.jsonl, each with `step`.
    """

    position: str
    seed: int
    results: dict[str, float]
    curves: list[dict[str, Any]]


COLUMNS = (
    ("clean/accuracy", "translated"),
    ("affine/accuracy", "affine"),
    ("affine_box/accuracy", "affine, upright box"),
    ("affine_swapped/accuracy", "affine, another's keypoints"),
)


def by_position(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Group runs by encoding, in order of appearance."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.position, []).append(run)
    return groups


def mean_std(values: Sequence[float]) -> str:
    """Write accuracies in 0..1 as percent: mean, and ± sample deviation if several."""
    percent = 100 * np.asarray(values)
    if len(percent) == 1:
        return f"{percent[0]:.1f}"
    return f"{percent.mean():.1f} ± {percent.std(ddof=1):.1f}"


def table(runs: Sequence[Run]) -> str:
    """Write a Markdown table: an encoding per row, a test condition per column.

    A condition that an encoding does not have stays empty.
    """
    lines = [
        "| encoding | " + " | ".join(title for _, title in COLUMNS) + " | seeds |",
        "|---" * (len(COLUMNS) + 2) + "|",
    ]
    for position, group in by_position(runs).items():
        cells = [
            mean_std([run.results[metric] for run in group])
            if metric in group[0].results
            else ""
            for metric, _ in COLUMNS
        ]
        lines.append(f"| {position} | " + " | ".join(cells) + f" | {len(group)} |")
    return "\n".join(lines) + "\n"


def plot_conditions(
    runs: Sequence[Run], prefix: str, label: str, path: pathlib.Path
) -> None:
    """Plot accuracy against the number that ends the names of an evaluator's metrics.

    Runs without such metrics have no line.

    Args:
      runs: to compare.
      prefix: of the metrics, such as "sweep/"; the rest is a number.
      label: of the horizontal axis.
      path: of the picture.
    """
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for position, group in by_position(runs).items():
        names = [name for name in group[0].results if name.startswith(prefix)]
        names = [name for name in names if not name.endswith("count")]
        if not names:
            continue
        x = [float(name.removeprefix(prefix)) for name in names]
        y = 100 * np.array([[run.results[name] for name in names] for run in group])
        (line,) = axes.plot(x, y.mean(0), marker="o", markersize=3, label=position)
        if len(group) > 1:
            low, high = y.min(0), y.max(0)
            axes.fill_between(x, low, high, color=line.get_color(), alpha=0.15)
    _finish(figure, axes, label, path)


def plot_curves(runs: Sequence[Run], metric: str, path: pathlib.Path) -> None:
    """Plot a test accuracy against training steps, mean over seeds."""
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for position, group in by_position(runs).items():
        curves = [
            {row["step"]: row[metric] for row in run.curves if metric in row}
            for run in group
        ]
        steps = sorted(set.intersection(*(set(curve) for curve in curves)))
        mean = [100 * np.mean([curve[step] for curve in curves]) for step in steps]
        axes.plot(steps, mean, marker="o", markersize=3, label=position)
    _finish(figure, axes, "training steps", path)


def _finish(figure, axes, label: str, path: pathlib.Path) -> None:
    axes.set_xlabel(label)
    axes.set_ylabel("accuracy, %")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def write_report(runs: Sequence[Run], output: pathlib.Path) -> str:
    """Write report.md and its plots.

    Returns: the table and where the report lies, for the terminal.
    """
    output.mkdir(parents=True, exist_ok=True)
    pictures = {"severity": "severity.png"}
    severity = "severity of rotation, shear and scale (1 = affNIST's ranges)"
    plot_conditions(runs, "sweep/", severity, output / "severity.png")
    if any(name.startswith("noise/") for run in runs for name in run.results):
        pictures["noise"] = "keypoint_noise.png"
        error = "keypoint error α (Eq. 12), random per coordinate, at severity 1"
        plot_conditions(runs, "noise/uniform_", error, output / pictures["noise"])
    for title, condition in (("affine", "affine"), ("translated", "clean")):
        pictures[title] = f"{title}_over_steps.png"
        plot_curves(runs, f"{condition}/accuracy", output / pictures[title])
    text = (
        "# Position encodings under affine distortion\n\n"
        "Trained on translated digits. Top-1 accuracy in percent, mean ± standard "
        "deviation over seeds, of the last checkpoint.\n\n"
        + table(runs)
        + "".join(f"\n![{title}]({name})" for title, name in pictures.items())
        + "\n"
    )
    (output / "report.md").write_text(text)
    return table(runs) + f"report: {output / 'report.md'}\n"
