"""Tables and plots of the experiment `set_fusion`."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")  # files only, on any machine
import matplotlib.pyplot as plt
import numpy as np

from kprpe_jax.report.robustness import mean_std


class FusionRun(NamedTuple):
    """One method with one seed.

    Attributes:
      name: of the method, with what is varied.
      seed: of its training.
      results: metric -> images of a probe -> share, such as results["rank1"]["16"].
      more: further numbers, such as those of random orders.
      curves: rows of metrics.jsonl.
    """

    name: str
    seed: int
    results: Mapping[str, Mapping[str, float]]
    more: Mapping[str, Any] = {}
    curves: Sequence[Mapping[str, float]] = ()


def by_name(runs: Sequence[FusionRun]) -> dict[str, list[FusionRun]]:
    """Runs of each method, in order of appearance."""
    groups: dict[str, list[FusionRun]] = {}
    for run in runs:
        groups.setdefault(run.name, []).append(run)
    return groups


def size_table(runs: Sequence[FusionRun], metric: str) -> str:
    """Percent by method and size of the probe, mean and deviation over seeds."""
    sizes = list(runs[0].results[metric])
    lines = [
        "| method | " + " | ".join(f"N = {n}" for n in sizes) + " | seeds |",
        "|---" * (len(sizes) + 2) + "|",
    ]
    for name, group in by_name(runs).items():
        cells = [
            mean_std([run.results[metric][size] for run in group]) for size in sizes
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {len(group)} |")
    return "\n".join(lines) + "\n"


def plot_sizes(
    runs: Sequence[FusionRun], metric: str, label: str, path: pathlib.Path
) -> None:
    """Plot a metric against the images of a probe; a band from least to most seed."""
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for name, group in by_name(runs).items():
        sizes = [int(size) for size in group[0].results[metric]]
        values = 100 * np.array([list(run.results[metric].values()) for run in group])
        (line,) = axes.plot(sizes, values.mean(0), marker="o", markersize=3, label=name)
        if len(group) > 1:
            low, high = values.min(0), values.max(0)
            axes.fill_between(sizes, low, high, color=line.get_color(), alpha=0.15)
    _finish(figure, axes, sizes, label, path)


def plot_gain(
    runs: Sequence[FusionRun], metric: str, baseline: str, path: pathlib.Path
) -> None:
    """Plot the gain over a method in percent of it, as Fig. 1c of the paper."""
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    groups = by_name(runs)

    def mean(group: list[FusionRun]) -> np.ndarray:
        return np.mean([list(run.results[metric].values()) for run in group], 0)

    base = mean(groups[baseline])
    sizes = [int(size) for size in groups[baseline][0].results[metric]]
    for name, group in groups.items():
        gain = 100 * (mean(group) - base) / np.maximum(base, 1e-12)
        axes.plot(sizes, gain, marker="o", markersize=3, label=name)
    _finish(figure, axes, sizes, f"gain over {baseline}, percent", path)


def plot_entropy(runs: Sequence[FusionRun], path: pathlib.Path) -> None:
    """Plot the entropy of the assignment against training steps, as Supp. E."""
    figure, axes = plt.subplots(figsize=(5, 3), layout="constrained")
    for run in runs:
        rows = [row for row in run.curves if "probes/entropy" in row]
        if rows:
            steps, values = zip(
                *((row["step"], row["probes/entropy"]) for row in rows), strict=True
            )
            axes.plot(steps, values, marker="o", label=f"{run.name}, seed {run.seed}")
    axes.set(xlabel="training steps", ylabel="entropy of a cluster, nats")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _finish(figure, axes, sizes: Sequence[int], label: str, path: pathlib.Path) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.set(xlabel="images of a probe", ylabel=label)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    figure.savefig(path, dpi=110)
    plt.close(figure)
