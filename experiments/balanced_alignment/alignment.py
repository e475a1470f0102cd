"""How strong alignment should be: train each variant, measure accuracy and ANME.

Source: Balanced Alignment, Figs. 3, 4, 7, 8 and 9, Tables 2 and 3.

    python -m experiments alignment --config configs/balanced_alignment.py:small \
        --groups strength,place,methods,template --seeds 0 --output reports/alignment

The group `keypoints`, on configs/balanced_alignment.py:small_kprpe, is none of the
paper's: the spline in front of a transformer with and without keypoint bias. A study
that was stopped continues where it was.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments import options as shared
from experiments.whole_run import check_different, train_and_measure
from kprpe_jax.commands.options import words
from kprpe_jax.core import mesh
from kprpe_jax.report import alignment as report
from kprpe_jax.tasks import joint_alignment
from kprpe_jax.training.checkpoint import restore_for_eval
from kprpe_jax.training.evaluate import evaluate
from kprpe_jax.training.state import abstract_state

_INPUT = {"alignment.after": "input"}
_FIXED_WEIGHTS = {"alignment.learn_weights": False}
_FIXED_TEMPLATE = {"alignment.learn_template": False}
BALANCED = "tps 8 x 8, lambda 3"  # the paper's choice, and the config's

# Name -> fields of the config that differ from its own.
VARIANTS: dict[str, dict[str, Any]] = {
    "tps 8 x 8, lambda 0": {"alignment.strength": 0.0},
    "tps 8 x 8, lambda 1": {"alignment.strength": 1.0},
    BALANCED: {},
    "tps 8 x 8, lambda 5": {"alignment.strength": 5.0},
    "tps 8 x 8, lambda 7": {"alignment.strength": 7.0},
    "none": {"alignment.method": "none", "alignment.strength": 0.0},
    "affine 2D": {"alignment.method": "affine2d", "alignment.strength": 0.0},
    "projective, lambda 3": {"alignment.method": "projective"},
    "tps 2 x 2, lambda 3": {"alignment.control": (2, 2)},
    "full align": {"alignment.method": "full_align", "alignment.strength": 0.0},
    "fixed template": _FIXED_TEMPLATE,
    "learned template, then fixed": _FIXED_TEMPLATE,
    "fixed weights": _FIXED_WEIGHTS,
}
VARIANTS |= {
    f"{name}, input": {**changes, **_INPUT}
    for name, changes in VARIANTS.items()
    if name != "none"
}
VARIANTS |= {  # of small_kprpe, whose spline warps the input
    "no keypoints": {**VARIANTS["none"], "model.position": "absolute"},
    "no keypoints, spline": {"model.position": "absolute"},
    "keypoints": VARIANTS["none"],
    "keypoints, spline": {},
}
_METHODS = (
    *("affine 2D", "projective, lambda 3", "tps 2 x 2, lambda 3"),
    *(BALANCED, "full align"),
)
GROUPS = {
    "strength": ("none", *(f"tps 8 x 8, lambda {n}" for n in (0, 1, 3, 5, 7))),
    "place": tuple(
        f"tps 8 x 8, lambda {n}{place}" for n in (0, 3) for place in (", input", "")
    ),
    "methods": ("none", *(m + p for m in _METHODS for p in (", input", ""))),
    "template": (
        *(BALANCED, "fixed template", "learned template, then fixed"),
        "fixed weights",
    ),
    "keypoints": tuple(
        f"{name}{spline}"
        for name in ("no keypoints", "keypoints")
        for spline in ("", ", spline")
    ),
}
_LEARNED_BY = {"learned template, then fixed": BALANCED}


def run_study(
    config: ConfigDict, output: pathlib.Path, *, names: Sequence[str], seed: int
) -> dict[str, dict[str, Any]]:
    """Train and evaluate some variants; the last checkpoint counts, not the best.

    Args:
      config: of all runs, but for what VARIANTS says.
      output: runs go to output/runs/NAME-SEED.
      names: keys of VARIANTS, each before those that want its template.
      seed: value of config.seed.
    Returns: name -> {"evaluator/metric": value}, with `template` [S, 2] and `weights`
      [S] as lists.
    Raises: StoppedError: SIGTERM ended a training; what was done is kept. ValueError: a
      folder of a run with another config; as `loop.train`.
    """
    results = {}
    for name in names:
        workdir = output / "runs" / f"{_slug(name)}-{seed}"
        own = ConfigDict(config.to_dict())
        own.seed = seed
        own.update_from_flattened_dict(VARIANTS[name])
        if name in _LEARNED_BY:
            source = output / "runs" / f"{_slug(_LEARNED_BY[name])}-{seed}"
            own.alignment.template = str(source / "template.npz")
        own.lock()
        measure = partial(_measure, own, workdir)
        results[name] = train_and_measure(own, workdir, measure)
    return results


def _measure(config: ConfigDict, workdir: pathlib.Path) -> dict[str, Any]:
    values = evaluate(config, workdir, checkpoint="last")
    shape = _learned(config, workdir)
    np.savez(workdir / "template.npz", **shape)
    return values | {key: array.tolist() for key, array in shape.items()}


def _slug(name: str) -> str:
    return name.replace(", ", "-").replace(" ", "_")


def _learned(config: ConfigDict, workdir: pathlib.Path) -> dict[str, np.ndarray]:
    """Template and weights of a run's last state."""
    devices = mesh.make_mesh(config.mesh)
    task = joint_alignment.build(config, devices)
    state = restore_for_eval(workdir, "last", abstract_state(task, devices), config)
    first = joint_alignment.make_template(config)
    return {
        "template": np.asarray(joint_alignment.learned_template(state.params, first)),
        "weights": np.asarray(
            jax.device_get(joint_alignment.landmark_weights(state.params, len(first)))
        ),
        "first_template": first,
    }


TAKES_CONFIG = True


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    shared.add_config(parser, "configs/balanced_alignment.py:small")
    parser.add_argument(
        "--groups",
        type=words,
        default=["strength"],
        metavar="NAME,NAME",
        help=f"tables to make, of {','.join(GROUPS)} (strength)",
    )
    shared.add_seeds(parser)
    shared.add_report(parser, "reports/alignment")


def run(options: argparse.Namespace) -> None:
    """Run the experiment."""
    config = shared.read_config(options)
    for group in options.groups:
        if group not in GROUPS:
            raise ValueError(
                f"--groups must be some of {', '.join(GROUPS)}; got {group!r}"
            )
    seeds = options.seeds
    check_different("alignment", "seeds", seeds)
    names = list(dict.fromkeys(n for g in options.groups for n in GROUPS[g]))
    runs = [run_study(config, options.output, names=names, seed=seed) for seed in seeds]
    groups = {group: GROUPS[group] for group in options.groups}
    sys.stdout.write(report.write_report(runs, groups, options.output))
