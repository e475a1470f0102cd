"""Tables and plots of `experiments.deepface_emd.reranking`."""

import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import matplotlib

matplotlib.use("Agg")  # files only, on any machine
import matplotlib.pyplot as plt

FIGURES = {"p_at_1": "P@1", "rp": "RP", "map_at_r": "MAP@R"}
NAMES = {
    "uniform": "Uniform",
    "apc": "APC",
    "cc": "CC",
    "sc": "SC",
    "landmarks": "LMK",
    "sc_distance": "SC of distances (official code)",
}
OWN = {
    "removed": "own photo not in the gallery",
    "kept": "own photo in the gallery",
    "counted": "own photo never found, but counted in R",
}
ALPHA = "0.7"


def write(results: Mapping[str, Any], output: pathlib.Path) -> str:
    """Write tables.md and the plots.

    Args:
      results: from `run_study`.
      output: folder.
    Returns: the tables.
    """
    parts = [
        f"Gallery: {results['photos']} photos of {results['people']} people. Percent.\n"
    ]
    parts += [
        f"**P@1 / MAP@R; {title}**\n\n{overview(results['queries'], own)}"
        for own, title in OWN.items()
        if any(own in modes for modes in results["queries"].values())
    ]
    for kind, modes in results["queries"].items():
        for own in OWN:
            if own in modes:
                title = f"{modes['count']} queries, {kind}; {OWN[own]}"
                parts.append(f"**{title}**\n\n{weighting_table(modes[own])}")
    for kind, table in results["depth"].items():
        rows = [[k, *_cells(figures)] for k, figures in table.items()]
        parts.append(f"**k, {kind}, uniform**\n\n{_table(['k'], rows)}")
    for kind, table in results["packing"].items():
        rows = [[k, *_cells(figures)] for k, figures in table.items()]
        parts.append(f"**Gallery's patches kept as, {kind}**\n\n{_table([''], rows)}")
    for kind, table in results["alone"].items():
        parts.append(f"**EMD alone, {kind}**\n\n{alone_table(table)}")
    if "milliseconds" in results:
        times = [[name, f"{ms:.1f}"] for name, ms in results["milliseconds"].items()]
        head = "| part | processor ms a query |\n|---|---|\n"
        parts.append(head + "".join(f"| {a} | {b} |\n" for a, b in times))
    text = "\n".join(parts)
    (output / "tables.md").write_text(text)
    plot_alphas(results["queries"], output / "reranking_alpha.png")
    return text


def overview(kinds: Mapping[str, Any], own: str) -> str:
    """P@1 / MAP@R of every method, a column per kind of queries."""
    kinds = {kind: modes[own] for kind, modes in kinds.items() if own in modes}

    def row(title: str, find: Callable[[Mapping], Mapping]) -> str:
        cells = [find(modes) for modes in kinds.values()]
        shown = [f"{x['p_at_1']:.1f} / {x['map_at_r']:.1f}" for x in cells]
        return f"| {' | '.join([title, *shown])} |\n"

    text = f"| | {' | '.join(kinds)} |\n|---{'|---' * len(kinds)}|\n"
    text += row("stage 1 alone", lambda x: x["stage1"])
    text += row("perfect re-ranking", lambda x: x["perfect"])
    for alpha, title in ((ALPHA, "α = 0.7"), ("1", "α = 1")):
        for key, name in NAMES.items():
            text += row(f"{name}, {title}", lambda x, k=key, a=alpha: x[k][a])
    return text


def weighting_table(modes: Mapping[str, Any]) -> str:
    """Table 5.2: a row per weighting at alpha 0.7, and alone."""
    rows = [
        ["stage 1 alone", *_cells(modes["stage1"])],
        ["perfect re-ranking, k = 100", *_cells(modes["perfect"])],
    ]
    for alpha, title in ((ALPHA, "α = 0.7"), ("1", "α = 1")):
        rows += [
            [f"{name}, {title}", *_cells(modes[key][alpha])]
            for key, name in NAMES.items()
        ]
    return _table(["method"], rows)


def alone_table(table: Mapping[str, Any]) -> str:
    """Table 5.3: patches at stage 1 against two stages."""
    rows = [
        [NAMES[name], title, *_cells(both[key])]
        for name, both in table.items()
        for key, title in (("alone", "EMD at stage 1"), ("two_stages", "two stages"))
    ]
    return _table(["weights", "method"], rows)


def plot_alphas(kinds: Mapping[str, Any], path: pathlib.Path) -> None:
    """P@1 by alpha, a panel per kind of queries (Fig. 5.1); own photo removed."""
    figure, axes = plt.subplots(
        1, len(kinds), figsize=(3.2 * len(kinds), 3.2), layout="constrained"
    )
    for axis, (kind, modes) in zip(_flat(axes), kinds.items(), strict=True):
        for key, name in NAMES.items():
            points = modes["removed"][key]
            alphas = [float(alpha) for alpha in points]
            values = [figures["p_at_1"] for figures in points.values()]
            axis.plot(alphas, values, marker="o", markersize=3, label=name)
        axis.set_title(kind, fontsize=10)
        axis.set_xlabel("α")
        axis.grid(alpha=0.3)
    first = _flat(axes)[0]
    first.set_ylabel("P@1, %")
    first.legend(fontsize=7)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _flat(axes: Any) -> list:
    return list(axes) if isinstance(axes, Iterable) else [axes]


def _cells(figures: Mapping[str, float]) -> list[str]:
    return [f"{figures[key]:.2f}" for key in FIGURES]


def _table(heads: list[str], rows: list[list[str]]) -> str:
    heads = [*heads, *FIGURES.values()]
    lines = [" | ".join(heads), " | ".join(["---"] * len(heads))]
    lines += [" | ".join(row) for row in rows]
    return "".join(f"| {line} |\n" for line in lines)
