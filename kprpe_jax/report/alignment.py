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
                cell += f" ± {values.std(ddof=1):.{digits}f}"
            cells.append(cell)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def plot_strength(runs: Runs, names: Sequence[str], path: str | pathlib.Path) -> None:
    """Draw rank-1 on moved faces against ANME, means over the seeds."""
    points = {}
    for name in names:
        anme, rank_1 = (
            np.mean([run[name][f"misaligned_1/{metric}"] for run in runs])
            for metric in ("anme", "rank_1")
        )
        points[name] = (anme, 100 * rank_1)
    plot_points(points, path)


def plot_points(
    points: Mapping[str, tuple[float, float]], path: str | pathlib.Path
) -> None:
    """Draw rank-1 against ANME, one named point per variant.

    Alignment grows from left to right, as in the paper's Figs. 3 and 7.

    Args:
      points: name -> (ANME, rank-1 in percent); squares for names that end in "input".
      path: of the picture.
    """
    figure, axis = plt.subplots(figsize=(5.6, 3.8))
    for name, (x, y) in points.items():
        at_input = name.endswith("input")
        axis.plot(x, y, "s" if at_input else "o", color="C1" if at_input else "C0")
        axis.annotate(
            name, (x, y), fontsize=6, xytext=(4, 3), textcoords="offset points"
        )
    axis.set(xlabel="ANME (stronger alignment to the right)", ylabel="rank-1, %")
    axis.set_xscale("log")
    axis.invert_xaxis()
    axis.margins(x=0.25, y=0.12)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)


def plot_warps(
    before: np.ndarray,
    after: np.ndarray,
    grid: np.ndarray,
    landmarks: np.ndarray,
    aligned: np.ndarray,
    path: str | pathlib.Path,
) -> None:
    """Draw faces with the grid that warps them, and what becomes of them below.

    Args:
      before, after: [N, H, W, 3] in [-1, 1].
      grid: [N, L, L, 2], lines in the face above, as fractions.
      landmarks, aligned: [N, S, 2], of the faces above and below, as fractions.
      path: of the picture.
    """
    count = len(before)
    figure, axes = plt.subplots(2, count, figsize=(1.5 * count, 3.1), squeeze=False)
    for i in range(count):
        for axis, image, points in (
            (axes[0, i], before[i], landmarks[i]),
            (axes[1, i], after[i], aligned[i]),
        ):
            shown = np.clip((image + 1) / 2, 0, 1)
            axis.imshow(shown, extent=(0, 1, 1, 0), aspect="auto")
            axis.scatter(*points.T, s=0.8, c="cyan", linewidths=0)
            axis.set(xlim=(0, 1), ylim=(1, 0), xticks=[], yticks=[])
        for lines in (grid[i], grid[i].swapaxes(0, 1)):
            for line in lines:
                axes[0, i].plot(*line.T, c="yellow", lw=0.6)
    figure.subplots_adjust(wspace=0.03, hspace=0.03, left=0, right=1, top=1, bottom=0)
    figure.savefig(path, dpi=130, bbox_inches="tight", pad_inches=0.03)
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
