"""Tables and plots of alignment strength against recognition."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")  # files only, on any machine
import matplotlib.pyplot as plt
import numpy as np

Runs = Sequence[Mapping[str, Mapping[str, Any]]]  # per seed: variant -> results

COLUMNS = {  # title -> (metric, factor)
    "ANME before": ("misaligned_1/anme_before", 1.0),
    "ANME": ("misaligned_1/anme", 1.0),
    "rank-1, moved": ("misaligned_1/rank_1", 100.0),
    "accuracy, moved": ("misaligned_1/accuracy", 100.0),
    "rank-1": ("aligned/rank_1", 100.0),
    "accuracy": ("aligned/accuracy", 100.0),
}


def write_report(
    runs: Runs, groups: Mapping[str, Sequence[str]], output: pathlib.Path
) -> str:
    """Write report.md with a table per group, and the plots beside it.

    Args:
      runs: one mapping per seed: variant -> {"evaluator/metric": value}.
      groups: title -> variants.
      output: folder.
    Returns: the text.
    """
    output.mkdir(parents=True, exist_ok=True)
    parts = [f"Seeds: {len(runs)}. Rank-1 and accuracy in percent.\n"]
    for group, names in groups.items():
        parts.append(f"## {group}\n\n{table(runs, names)}")
        plot_strength(runs, names, output / f"{group}.png")
    text = "\n".join(parts)
    (output / "report.md").write_text(text)
    return text


def table(runs: Runs, names: Sequence[str]) -> str:
    """Markdown table: a row per variant, mean and deviation over the seeds."""
    lines = [
        "| variant | " + " | ".join(COLUMNS) + " |",
        "|---" * (len(COLUMNS) + 1) + "|",
    ]
    for name in names:
        cells = []
        for metric, factor in COLUMNS.values():
            values = factor * np.array([run[name][metric] for run in runs])
            digits = 3 if factor == 1 else 1
            cell = f"{values.mean():.{digits}f}"
            if len(values) > 1:
                cell += f" ± {values.std():.{digits}f}"
            cells.append(cell)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def plot_strength(runs: Runs, names: Sequence[str], path: str | pathlib.Path) -> None:
    """Draw rank-1 on moved faces against ANME, one point per variant.

    Alignment grows from left to right, as in the paper's Figs. 3 and 7.
    """
    figure, axis = plt.subplots(figsize=(5.6, 3.8))
    for name in names:
        x, y = (
            np.mean([run[name][f"misaligned_1/{metric}"] for run in runs])
            for metric in ("anme", "rank_1")
        )
        marker = "s" if name.endswith("input") else "o"
        axis.plot(x, 100 * y, marker, color="C1" if marker == "s" else "C0")
        axis.annotate(
            name, (x, 100 * y), fontsize=6, xytext=(4, 3), textcoords="offset points"
        )
    axis.set(xlabel="ANME (stronger alignment to the right)", ylabel="rank-1, %")
    axis.invert_xaxis()
    axis.margins(x=0.25, y=0.12)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)


def plot_template(
    first: np.ndarray,
    learned: np.ndarray,
    weights: np.ndarray,
    path: str | pathlib.Path,
) -> None:
    """Draw the first and the learned template, and the weights of its landmarks.

    Args:
      first, learned: [S, 2], fractions of the image.
      weights: [S], in 0..1.
      path: of the picture.
    """
    figure, axes = plt.subplots(1, 2, figsize=(7.4, 3.7))
    axes[0].scatter(*np.asarray(first).T, s=10, c="0.6", label="mean of frontal faces")
    axes[0].scatter(*np.asarray(learned).T, s=10, c="C0", label="learned")
    for a, b in zip(np.asarray(first), np.asarray(learned), strict=True):
        axes[0].plot(*zip(a, b, strict=True), "-", c="0.8", lw=0.8, zorder=0)
    axes[0].legend(fontsize=7)
    shown = axes[1].scatter(*np.asarray(learned).T, s=16, c=weights, cmap="viridis")
    figure.colorbar(shown, ax=axes[1], label="weight of the landmark")
    for axis in axes:
        axis.set(xlim=(0, 1), ylim=(1, 0), aspect="equal", xticks=[], yticks=[])
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)
