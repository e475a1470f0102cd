"""Compare position encodings: train each, test each under affine distortion.

Source: KP-RPE, Fig. 1; on faces Sec. 4.2 (aligned and unaligned test sets).

    python -m kprpe_jax.studies.encodings --config configs/digits.py \
        --positions absolute,kprpe_multihead --seeds 0,1,2 --output reports/digits
    python -m kprpe_jax.studies.encodings --config configs/synthetic_faces.py \
        --positions absolute,kprpe_multihead --output reports/faces

A study that was stopped continues where it was.
"""

import json
import pathlib
import sys
from collections.abc import Sequence

from absl import app, flags
from ml_collections import ConfigDict

from kprpe_jax.position.encoding import KEYPOINT_FORMS, POSITIONS
from kprpe_jax.report import robustness
from kprpe_jax.studies import offsets
from kprpe_jax.tasks import inputs
from kprpe_jax.training import loop
from kprpe_jax.training.command import command, parse_flags, read_config
from kprpe_jax.training.evaluate import evaluate

_POSITIONS = flags.DEFINE_list(
    "positions", ["absolute", "kprpe_multihead"], "Encodings to compare."
)
_SEEDS = flags.DEFINE_list("seeds", ["0"], "Seeds; each is a run of each encoding.")
_OUTPUT = flags.DEFINE_string("output", "reports/digits", "Folder of the report.")


class Stopped(RuntimeError):
    """A run was asked to stop before its end, and so is the study."""


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
    Raises: Stopped: SIGTERM ended a training; what was done is kept.
    Raises: ValueError: an unknown encoding, before any run; faults as `loop.train`.
    """
    for position in positions:
        if position not in POSITIONS:
            raise ValueError(
                f"encodings: unknown position {position!r}; use some of {POSITIONS}."
            )
    runs = []
    for seed in seeds:
        for position in positions:
            with config.unlocked():
                config.seed, config.model.position = seed, position
            workdir = output / "runs" / f"{position}-{seed}"
            finished = workdir / "eval.json"
            if not finished.exists():
                step = int(loop.train(config, workdir)["step"])
                if step < config.steps:  # SIGTERM
                    raise Stopped(
                        f"encodings: stopped after step {step} of {workdir}; start the "
                        "study again to go on"
                    )
                results = evaluate(config, workdir, which="last")
                finished.write_text(json.dumps(results, indent=2) + "\n")
            results = json.loads(finished.read_text())
            curves = [
                json.loads(line)
                for line in (workdir / "metrics.jsonl").read_text().splitlines()
            ]
            runs.append(robustness.Run(position, seed, results, curves))
    return runs


def _compare(overrides: list[str]) -> None:
    config = read_config(overrides)
    output = pathlib.Path(_OUTPUT.value)
    if not all(seed.isdecimal() for seed in _SEEDS.value):
        raise ValueError(
            "encodings: --seeds must be whole numbers, such as 0,1,2; got "
            f"{','.join(_SEEDS.value)}"
        )
    seeds = [int(seed) for seed in _SEEDS.value]
    runs = run_study(config, output, positions=_POSITIONS.value, seeds=seeds)
    if config.task == "face_recognition":
        layout = robustness.faces(config.evals.severities)
        sys.stdout.write(robustness.write_report(runs, output, layout))
        return
    text = robustness.write_report(runs, output)
    for position in _POSITIONS.value:
        if position in KEYPOINT_FORMS:
            _draw_offsets(config, output, position, seeds[0])
    sys.stdout.write(text)


def _draw_offsets(
    config: ConfigDict, output: pathlib.Path, position: str, seed: int
) -> None:
    with config.unlocked():
        config.model.position, config.seed = position, seed
    rows, columns = inputs.make_vit(config.model).grid
    offsets.draw(
        config,
        output / "runs" / f"{position}-{seed}",
        output / f"offsets_{position}.png",
        query=(rows // 2, columns // 2),
        layers=range(config.model.depth),
        heads=[0],
        num_images=4,
    )


main = command(_compare, failures=(Stopped,))

if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
