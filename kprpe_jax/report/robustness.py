"""Table and plots of accuracy under distortion, one line per encoding.

Source: KP-RPE, Fig. 1.
"""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")  # files only, on any machine
import matplotlib.pyplot as plt
import numpy as np
from ml_collections import ConfigDict

from kprpe_jax.evaluation.evaluators import entries


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


class Layout(NamedTuple):
    """What a report shows.

    Attributes:
      title: of the page.
      text: what the numbers are.
      columns: (metric, heading) of the table, accuracies in [0, 1].
      severity: of a run's results: distortion -> metric, for the plot against it.
      severity_label: of its axis.
      curves: file name -> metric, for the plots against training steps.
    """

    title: str
    text: str
    columns: Sequence[tuple[str, str]]
    severity: Callable[[dict[str, float]], dict[float, str]]
    severity_label: str
    curves: dict[str, str]


def numbered(prefix: str) -> Callable[[dict[str, float]], dict[float, str]]:
    """Metrics whose name is `prefix` and a number, by that number."""

    def find(results: dict[str, float]) -> dict[float, str]:
        names = (name for name in results if name.startswith(prefix))
        names = (name for name in names if not name.endswith(("count", "pairs")))
        return {float(name.removeprefix(prefix)): name for name in names}

    return find


def numbered_evaluators(evals: ConfigDict, prefix: str, field: str) -> dict[float, str]:
    """Evaluators PREFIX_NUMBER of a config's section, by their number, rising.

    Args:
      evals: the section.
      prefix: such as "misaligned".
      field: of the entries, that holds the number.
    """
    found = {
        entry[field]: name
        for name, entry in entries(evals).items()
        if name.startswith(f"{prefix}_") and field in entry
    }
    return dict(sorted(found.items()))


DIGITS = Layout(
    title="Position encodings under affine distortion",
    text="Trained on translated digits. Top-1 accuracy in percent, mean ± standard "
    "deviation over seeds, of the last checkpoint.",
    columns=(
        ("clean/accuracy", "translated"),
        ("affine/accuracy", "affine"),
        ("affine_box/accuracy", "affine, upright box"),
        ("affine_swapped/accuracy", "affine, swapped keypoints"),
    ),
    severity=numbered("sweep/"),
    severity_label="severity of rotation, shear and scale (1 = affNIST's ranges)",
    curves={
        "affine_over_steps.png": "affine/accuracy",
        "translated_over_steps.png": "clean/accuracy",
    },
)


def faces(evals: ConfigDict) -> Layout:
    """The report of face verification, aligned and `misaligned_S`.

    Args:
      evals: section of a config, whose evaluators are shown.
    """
    misaligned = numbered_evaluators(evals, "misaligned", "severity")
    shown = [(f"{n}/accuracy", f"misaligned, {s:g}") for s, n in misaligned.items()]

    def severity(results: dict[str, float]) -> dict[float, str]:
        places = {0.0: "aligned", **misaligned}
        metrics = {s: f"{name}/accuracy" for s, name in places.items()}
        return {s: metric for s, metric in metrics.items() if metric in results}

    return Layout(
        title="Position encodings on faces that lie badly in their images",
        text="Verification of held-out identities: accuracy in percent "
        "over ten folds, mean ± standard deviation over seeds, of the last checkpoint. "
        "Misaligned at severity 1: turned by up to 30 degrees, scaled by 0.75 to 1.25, "
        "shifted by 15 % of the side.",
        columns=[
            ("aligned/accuracy", "aligned"),
            *shown,
            ("swapped/accuracy", "misaligned, 1, swapped keypoints"),
        ],
        severity=severity,
        severity_label="severity of rotation, scale and shift",
        curves={"aligned_over_steps.png": "aligned/accuracy"},
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


def table(runs: Sequence[Run], layout: Layout = DIGITS) -> str:
    """Write a Markdown table: an encoding per row, a test condition per column.

    A condition that an encoding does not have stays empty; one that none has is left
    out.
    """
    columns = [c for c in layout.columns if any(c[0] in run.results for run in runs)]
    lines = [
        "| encoding | " + " | ".join(title for _, title in columns) + " | seeds |",
        "|---" * (len(columns) + 2) + "|",
    ]
    for position, group in by_position(runs).items():
        cells = [
            mean_std([run.results[metric] for run in group])
            if metric in group[0].results
            else ""
            for metric, _ in columns
        ]
        lines.append(f"| {position} | " + " | ".join(cells) + f" | {len(group)} |")
    return "\n".join(lines) + "\n"


def plot_conditions(
    runs: Sequence[Run],
    conditions: Callable[[dict[str, float]], dict[float, str]],
    label: str,
    path: pathlib.Path,
) -> None:
    """Plot accuracy against a number that describes the test condition.

    Runs without such conditions have no line.

    Args:
      runs: to compare.
      conditions: of a run's results: number -> metric (`numbered`).
      label: of the horizontal axis.
      path: of the picture.
    """
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for position, group in by_position(runs).items():
        found = conditions(group[0].results)
        if not found:
            continue
        x, names = list(found), list(found.values())
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


def write_report(
    runs: Sequence[Run], output: pathlib.Path, layout: Layout = DIGITS
) -> str:
    """Write report.md and its plots.

    Returns: the table and where the report lies, for the terminal.
    """
    output.mkdir(parents=True, exist_ok=True)
    pictures = ["severity.png"]
    path = output / pictures[0]
    plot_conditions(runs, layout.severity, layout.severity_label, path)
    noise = numbered("noise/uniform_")
    if any(noise(run.results) for run in runs):
        pictures.append("keypoint_noise.png")
        error = "keypoint error α (Eq. 12), random per coordinate, at severity 1"
        plot_conditions(runs, noise, error, output / pictures[-1])
    steps = numbered("partly_aligned/")
    if any(steps(run.results) for run in runs):
        pictures.append("partly_aligned.png")
        share = "from a detector's crop (0) to the aligned face (1)"
        plot_conditions(runs, steps, share, output / pictures[-1])
    for name, metric in layout.curves.items():
        pictures.append(name)
        plot_curves(runs, metric, output / name)
    text = (
        f"# {layout.title}\n\n{layout.text}\n\n"
        + table(runs, layout)
        + "".join(f"\n![{name.removesuffix('.png')}]({name})" for name in pictures)
        + "\n"
    )
    (output / "report.md").write_text(text)
    return table(runs, layout) + f"report: {output / 'report.md'}\n"
