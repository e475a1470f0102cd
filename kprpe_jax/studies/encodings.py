"""Compare position encodings: train each, test each under affine distortion.

Source: KP-RPE, Fig. 1.

    python -m kprpe_jax.studies.encodings --config configs/digits.py \
        --positions absolute,kprpe_multihead --seeds 0,1,2 --output reports/digits

A study that was stopped continues where it was.
"""

import json
import pathlib
import sys
from collections.abc import Sequence

from absl import app, flags, logging
from ml_collections import ConfigDict

from kprpe_jax.report import robustness
from kprpe_jax.training import config as config_lib
from kprpe_jax.training import loop
from kprpe_jax.training.evaluate import evaluate

_CONFIG = flags.DEFINE_string("config", "configs/digits.py", "Config file, path.py.")
_POSITIONS = flags.DEFINE_list(
    "positions", ["absolute", "kprpe_multihead"], "Encodings to compare."
)
_SEEDS = flags.DEFINE_list("seeds", ["0"], "Seeds; each is a run of each encoding.")
_OUTPUT = flags.DEFINE_string("output", "reports/digits", "Folder of the report.")


def run_study(
    config: ConfigDict,
    output: pathlib.Path,
    *,
    positions: Sequence[str],
    seeds: Sequence[int],
) -> list[robustness.Run]:
    """Train and evaluate every encoding with every seed.

    The last checkpoint is evaluated, not the best one: the test set chooses nothing.

    Args:
      config: of all runs, but for model.position and seed.
      output: runs go to output/runs/POSITION-SEED.
      positions: values of config.model.position.
      seeds: values of config.seed.
    Returns: one `Run` per encoding and seed.
    """
    runs = []
    for seed in seeds:
        for position in positions:
            with config.unlocked():
                config.seed, config.model.position = seed, position
            workdir = output / "runs" / f"{position}-{seed}"
            finished = workdir / "eval.json"
            if not finished.exists():
                loop.train(config, workdir)
                results = evaluate(config, workdir, which="last")
                finished.write_text(json.dumps(results, indent=2) + "\n")
            results = json.loads(finished.read_text())
            curves = [
                json.loads(line)
                for line in (workdir / "metrics.jsonl").read_text().splitlines()
            ]
            runs.append(robustness.Run(position, seed, results, curves))
    return runs


def main(overrides_and_surplus: tuple[list[str], list[str]]) -> None:
    """Run the study; a fault of the user is one sentence and exit code 2."""
    logging.set_verbosity(logging.WARNING)  # Orbax tells every file it writes
    overrides, surplus = overrides_and_surplus
    output = pathlib.Path(_OUTPUT.value)
    try:
        if surplus:
            raise ValueError(f"encodings: {surplus[0]!r} is not a flag; --name=value")
        config = config_lib.load_config(_CONFIG.value, overrides)
        seeds = [int(seed) for seed in _SEEDS.value]
        runs = run_study(config, output, positions=_POSITIONS.value, seeds=seeds)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
    sys.stdout.write(robustness.write_report(runs, output))


def parse_flags(argv: list[str]) -> tuple[list[str], list[str]]:
    """Parse the flags; hand overrides of the config and surplus arguments on."""
    rest, overrides = config_lib.split_overrides(argv)
    return overrides, flags.FLAGS(rest)[1:]


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
