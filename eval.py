"""Evaluate: python eval.py --config configs/digits.py --workdir runs/digits.

Restores a checkpoint (or reads published weights: --weights FILE), runs the config's
evaluators, prints a table and writes it as JSON beside the run. Fields of the config
are overridden by --config.section.field=value; those of the network must be the run's.
"""

import json
import pathlib
import sys

import jax
from absl import app, flags

from kprpe_jax.training.command import (
    command,
    parse_flags,
    read_config,
    read_workdir,
)
from kprpe_jax.training.evaluate import evaluate

_CHECKPOINT = flags.DEFINE_string(
    "checkpoint",
    "best",
    "best (the last, if the config has no checkpoint.best_metric), last, or a step.",
)
_WEIGHTS = flags.DEFINE_string("weights", None, "Published weights, no checkpoint.")
_EVALUATORS = flags.DEFINE_list("evaluators", [], "Some of the task's; default all.")
_OUTPUT = flags.DEFINE_string("output", None, "JSON file; default WORKDIR/eval.json.")


def _evaluate(overrides: list[str]) -> None:
    workdir = read_workdir()
    output = pathlib.Path(_OUTPUT.value or pathlib.Path(workdir, "eval.json"))
    if _OUTPUT.value and not output.parent.is_dir():
        raise ValueError(f"eval.py: --output {output} lies in no folder; make it first")
    results = evaluate(
        read_config(overrides),
        workdir,
        checkpoint=_CHECKPOINT.value,
        evaluators=_EVALUATORS.value,
        weights=_WEIGHTS.value,
    )
    if jax.process_index():
        return  # every process has the same numbers; process 0 writes them
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(results, indent=2) + "\n")
    width = max(map(len, results))
    for name, value in results.items():
        sys.stdout.write(f"{name:<{width}}  {value:.6g}\n")
    sys.stdout.write(f"written to {output}\n")


main = command(_evaluate)

if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
