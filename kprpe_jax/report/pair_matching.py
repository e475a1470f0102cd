"""Tables of `experiments.face_vit.pair_matching`."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

OWN = {
    "removed": "own photo not in the gallery",
    "kept": "own, unaltered photo in the gallery",
}
ALPHAS = ("0.3", "0.7", "1")


def write(results: Mapping[str, Any], output: pathlib.Path) -> str:
    """Write tables.md.

    Args:
      results: from `run_study`.
      output: folder.
    Returns: the tables.
    """
    people, photos = results["tested"]
    parts = [
        f"Trained on {results['trained'][1]} photos of {results['trained'][0]} people; "
        f"tested on {photos} photos of {people} others. Percent; mean and standard "
        "deviation over the seeds.\n",
        f"**Verification, {results['num_pairs']} pairs**\n\n{verification(results)}",
    ]
    for own, title in OWN.items():
        kinds = [
            kind
            for kind in results["kinds"]
            if own in results["networks"]["C"][0][kind]
        ]
        if kinds:
            parts.append(
                f"**P@1 / MAP@R; {results['num_queries']} queries, k = {results['k']}; "
                f"{title}**\n\n{search(results, kinds, own)}"
            )
    text = "\n".join(parts)
    (output / "tables.md").write_text(text)
    return text


def verification(results: Mapping[str, Any]) -> str:
    """Tables 5.10 and 5.11: a row per network, a column per kind of first photo."""
    rows = [
        [name, *(spread([one[kind]["accuracy"] for one in seeds])
                 for kind in results["kinds"])]
        for name, seeds in results["networks"].items()
    ]  # fmt: skip
    return table(["", *results["kinds"]], rows)


def search(results: Mapping[str, Any], kinds: Sequence[str], own: str) -> str:
    """Table 5.12: a row per network and alpha; the first stage is C."""

    def cells(seeds: Sequence[Mapping], alpha: str) -> list[str]:
        def of(kind: str, figure: str) -> str:
            return spread([one[kind][own][alpha][figure] for one in seeds])

        return [f"{of(kind, 'p_at_1')} / {of(kind, 'map_at_r')}" for kind in kinds]

    networks = results["networks"]
    rows = [["stage 1, C", *cells(networks["C"], "0")]]
    for alpha in ALPHAS:
        rows += [
            [f"{name}, α = {alpha}", *cells(seeds, alpha)]
            for name, seeds in networks.items()
            if name != "C"
        ]
    return table(["", *kinds], rows)


def spread(values: Sequence[float]) -> str:
    """Mean, and with several values their standard deviation."""
    mean = f"{np.mean(values):.1f}"
    return mean if len(values) < 2 else f"{mean} ± {np.std(values, ddof=1):.1f}"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [" | ".join(heads), " | ".join(["---"] * len(heads))]
    return "".join(f"| {line} |\n" for line in [*lines, *map(" | ".join, rows)])
