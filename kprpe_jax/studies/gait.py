"""Gait with and without KP-RPE: train both, search under several conditions.

Source: KP-RPE, Sec. 5, Table 5.

    python -m kprpe_jax.studies.gait --config configs/gait.py --seeds 0,1,2 \
        --output reports/gait

A study that was stopped continues where it was.
"""

import pathlib
import sys

from absl import app, flags
from ml_collections import ConfigDict

from kprpe_jax.backbones.swin_gait import POSITIONS
from kprpe_jax.report import robustness
from kprpe_jax.studies.encodings import Stopped, run_study
from kprpe_jax.training.command import command, parse_flags, read_config

_POSITIONS = flags.DEFINE_list(
    "positions", list(POSITIONS), "Position encodings to compare."
)
_SEEDS = flags.DEFINE_list("seeds", ["0"], "Seeds; each is a run of each encoding.")
_OUTPUT = flags.DEFINE_string("output", "reports/gait", "Folder of the report.")


def layout(config: ConfigDict) -> robustness.Layout:
    """What the report of a config's evaluators shows."""
    evals = config.evals
    columns = [
        ("aligned/rank_1", "rank-1"),
        ("aligned/rank_5", "rank-5"),
        ("aligned/rank_10", "rank-10"),
        ("aligned/map", "mAP"),
        ("aligned/minp", "mINP"),
    ]
    columns += [
        (f"misaligned_{s:g}/rank_1", f"misaligned, {s:g}") for s in evals.severities
    ]
    columns += [(f"noise_{a:g}/rank_1", f"joints off, {a:g}") for a in evals.alphas]
    columns += [
        (f"missing_{p:g}/rank_1", f"{100 * p:.0f} % of joints missing")
        for p in evals.missing
    ]
    columns.append(("swapped/rank_1", "another's joints"))
    places = {0.0: "aligned/rank_1"}
    places |= {s: f"misaligned_{s:g}/rank_1" for s in evals.severities}
    return robustness.Layout(
        title="Gait with and without keypoint-relative attention",
        text="Retrieval of people whom training did not see, in percent, mean ± "
        "standard deviation over seeds, of the last checkpoint; from the column "
        "misaligned on rank-1. Misaligned at severity 1: turned by up to 30 degrees, "
        "scaled by 0.75 to 1.25, shifted by 15 % of the side, each sequence by its "
        "own draw.",
        columns=columns,
        severity=lambda results: places,
        severity_label="severity of rotation, scale and shift",
        curves={"aligned_over_steps.png": "aligned/rank_1"},
    )


def _compare(overrides: list[str]) -> None:
    config = read_config(overrides)
    output = pathlib.Path(_OUTPUT.value)
    if not all(seed.isdecimal() for seed in _SEEDS.value):
        raise ValueError(
            "gait: --seeds must be whole numbers, such as 0,1,2; got "
            f"{','.join(_SEEDS.value)}"
        )
    seeds = [int(seed) for seed in _SEEDS.value]
    runs = run_study(config, output, positions=_POSITIONS.value, seeds=seeds)
    sys.stdout.write(robustness.write_report(runs, output, layout(config)))


main = command(_compare, failures=(Stopped,))

if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
