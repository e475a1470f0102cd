"""Stored outputs of the official code: where they lie and how tests read them."""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

FOLDER = Path(
    os.environ.get("KPRPE_GOLDEN_DIR")
    or Path(__file__).resolve().parents[3] / "shared" / "golden"
)


class Case(NamedTuple):
    """One case: `meta` is its JSON; `arrays` by kind and name, such as out, embedding.

    Kinds: param (the state dict), in, out, grad.
    """

    name: str
    meta: dict[str, Any]
    arrays: dict[str, dict[str, np.ndarray]]

    @property
    def options(self) -> dict[str, Any]:
        """The official constructor's arguments: tests read them nowhere else."""
        return dict(self.meta["constructor_kwargs"])

    @property
    def official_class(self) -> str:
        """Name of the official class, without its module."""
        return self.meta["official_class"].rpartition(".")[2]


# The official code's names of patch weights -> ours. Its patches are unit vectors, and
# their centers those of the maps as they were.
_WEIGHTINGS = {
    "uniform": "uniform",
    "apc": "apc_unit",
    "cc": "cc_unit",
    "sc": "sc_distance",
    "uew": "apc_joint_unit",
    "lmk": "landmarks",
}
# Where the case holds the centers themselves (tests put them into the embeddings,
# which `cc` reads).
_WITH_CENTERS = {"uniform": "uniform", "apc": "cc", "sc": "sc_distance"}


def official_weighting(name: str, *, with_centers: bool = False) -> str:
    """Our name of an official rule of patch weights: tests map them nowhere else.

    Args:
      name: as a case has it.
      with_centers: the case holds the centers, in place of maps to take them from.
    """
    table = _WITH_CENTERS if with_centers else _WEIGHTINGS
    assert name in table, f"no rule of ours is known for {name!r} ({with_centers=})"
    return table[name]


def official_weightings() -> tuple[str, ...]:
    """All official names."""
    return tuple(_WEIGHTINGS)


def case_names(prefix: str = "") -> list[str]:
    """All cases of the folder whose name starts so; empty where there is no folder."""
    return sorted(path.stem for path in FOLDER.glob(f"{prefix}*.json"))


def case_params(prefix: str) -> list[Any]:
    """Parameters for `pytest.mark.parametrize("case", ...)`."""
    return _params(case_names(prefix), f"no golden case {prefix}* in {FOLDER}")


def layout_params(prefix: str) -> list[Any]:
    """The same for the full-size name lists."""
    folder = FOLDER / "layouts"
    names = sorted(path.stem for path in folder.glob(f"{prefix}*.json"))
    return _params(names, f"no layout {prefix}* in {folder}")


def _params(names: list[str], reason: str) -> list[Any]:
    reason += "; set KPRPE_GOLDEN_DIR"
    return names or [pytest.param("none", marks=pytest.mark.skip(reason=reason))]


def load_case(name: str) -> Case:
    """Read a case."""
    meta = json.loads((FOLDER / f"{name}.json").read_text())
    arrays: dict[str, dict[str, np.ndarray]] = {}
    with np.load(FOLDER / f"{name}.npz") as archive:
        for key in archive.files:
            kind, _, rest = key.partition("::")
            arrays.setdefault(kind, {})[rest] = archive[key]
    return Case(name, meta, arrays)


def load_layout(name: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a full-size official state dict."""
    shapes = json.loads((FOLDER / "layouts" / f"{name}.json").read_text())
    return {key: tuple(shape) for key, shape in shapes.items()}


def assert_close(
    got: Any, want: np.ndarray, bound: float, what: str, *, floor: float = 0.0
) -> None:
    """Largest difference at most `bound` times the largest of |want| and `floor`."""
    got = np.asarray(got)
    assert got.shape == want.shape, f"{what}: shape {got.shape}, needs {want.shape}"
    peak = max(float(np.abs(want).max()), floor)
    error = float(np.abs(got - want).max())
    assert error <= bound * peak, f"{what}: {error:.2e} off at a peak of {peak:.2e}"


def summary_line(outcomes: dict[str, set[str]]) -> str:
    """What a test run says about golden cases.

    Args:
      outcomes: of the golden tests of this run, by case; a case counts as checked when
        all of its tests passed.
    """
    names = case_names()
    if not names:
        return f"golden: no cases in {FOLDER}; set KPRPE_GOLDEN_DIR to check parity"
    if not outcomes:
        return f"golden: no case checked, golden tests were not in this run ({FOLDER})"
    checked = {name for name in names if outcomes.get(name) == {"passed"}}
    families: dict[str, list[str]] = {}
    for name in names:
        if name not in checked:
            families.setdefault(name.split("_")[0], []).append(name)
    left = ", ".join(
        members[0] if len(members) == 1 else f"{family}_* ({len(members)})"
        for family, members in families.items()
    )
    return (
        f"golden: {len(checked)} of {len(names)} cases checked; "
        f"not covered: {left or 'none'}"
    )
