"""Compare ways to fuse the images of a person, as probes grow.

Source: Cluster and Aggregate, Fig. 1c, 7 and Tab. 4 (random order).

    python -m experiments set_fusion --config configs/set_fusion.py \
        --gallery lfw_gallery --seeds 0,1,2 --output reports/set_fusion

Each method is trained with each seed on the config's people, and searched with probes
of others among all of the gallery. A study that was stopped continues where it was.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import numpy as np
from ml_collections import ConfigDict

from experiments import options as shared
from experiments.cluster_aggregate.probes import Trial, by_metric
from experiments.whole_run import (
    check_different,
    train_to_the_end,
    write_whole,
)
from kprpe_jax import tasks
from kprpe_jax.commands.options import words
from kprpe_jax.core import mesh as mesh_lib
from kprpe_jax.data.features import read_features
from kprpe_jax.fusion.weighted import WeightedFusion
from kprpe_jax.report import set_fusion as report
from kprpe_jax.tasks.networks import own_variables
from kprpe_jax.tasks.set_fusion import make_model
from kprpe_jax.training import runs as run_lib
from kprpe_jax.training.checkpoint import restore_for_eval
from kprpe_jax.training.state import abstract_state

UNTRAINED = ("average", "norm_weighted", "inlier_average")
METHODS = ("average", "norm_weighted", "pfe", "cfan", "rsa", "cluster_aggregate")
METRICS = {
    "rank1": "rank-1, percent",
    "tar_1e-4": "TAR at FAR 1e-4, percent",
    "tar_1e-3": "TAR at FAR 1e-3, percent",
}


def trained(
    config: ConfigDict, workdir: pathlib.Path, *, finished: bool
) -> tuple[nn.Module, Any]:
    """Train, or go on, or take what is there: a model and its variables.

    Args:
      config: of the run.
      workdir: of the run.
      finished: take what is there, whatever else the config says of evaluation.
    Raises: StoppedError: SIGTERM ended the training. ValueError: `output` holds this
      run of another config, or searched another gallery or with other sizes.
    """
    if not finished:
        train_to_the_end(config, workdir)
    mesh = mesh_lib.make_mesh(config.mesh)
    task = tasks.build(config, mesh)
    state = restore_for_eval(workdir, "last", abstract_state(task, mesh), config)
    features = read_features(config.data.dir, config.data.features, "clean")
    model = make_model(config.fusion, embed_dim=features.features.embeddings.shape[1])
    return model, own_variables(state.params, state.collections, "fusion")


def study_batches(trial: Trial, model: nn.Module, variables: Any) -> dict[str, Any]:
    """The largest probes in batches N', and in five random orders of four batches."""
    size = max(trial.sizes)
    run = partial(trial.run, model, variables, sizes=(size,))
    counts = sorted({n for n in (1, 4, 16) if n < size} | {size})
    part = max(size // 4, 1)
    return {
        "batches": {str(n): by_metric(run(batch_images=n)) for n in counts},
        "orders": [
            by_metric(run(batch_images=part, order_seed=seed)) for seed in range(5)
        ],
    }


def run_one(
    config: ConfigDict,
    trial: Trial,
    output: pathlib.Path,
    name: str,
    seed: int,
    *,
    runs: pathlib.Path | None = None,
) -> report.FusionRun:
    """Train a method with a seed and search with it, unless that was done.

    Args:
      config: with the method's fields and the seed set.
      trial: probes and gallery.
      output: the run goes to output/runs/NAME-SEED.
      name: of the run.
      seed: its seed.
      runs: folder of finished runs to take instead; the results go to `output`.
    Raises: StoppedError: SIGTERM ended the training. ValueError: `output` holds this
      run of another config, or searched another gallery or with other sizes.
    """
    title = f"{name.replace(' ', '_')}-{seed}"
    workdir = (runs or output / "runs") / title
    finished = output / "runs" / title / "probes.json"
    run_lib.check_workdir(config, finished.parent)
    if not finished.exists():
        if config.fusion.method in UNTRAINED:
            embed_dim = trial.images.features.embeddings.shape[1]
            model, variables = WeightedFusion(embed_dim, config.fusion.method), {}
        else:
            model, variables = trained(config, workdir, finished=runs is not None)
        found = {"asked": trial.asked}
        found |= {"results": by_metric(trial.run(model, variables)), "more": {}}
        if config.fusion.method == "cluster_aggregate":
            found["more"] = study_batches(trial, model, variables)
        run_lib.save_config(config, finished.parent)
        write_whole(finished, found)
    found = json.loads(finished.read_text())
    asked = found.pop("asked", None)
    if asked != trial.asked:
        raise ValueError(
            f"set_fusion: {finished} must be of {trial.asked}; it is of {asked}; take "
            "another --output"
        )
    curves = workdir / "metrics.jsonl"
    lines = curves.read_text().splitlines() if curves.exists() else []
    return report.FusionRun(
        name, seed, curves=[json.loads(line) for line in lines], **found
    )


def write_report(
    runs: Sequence[report.FusionRun], trial: Trial, output: pathlib.Path
) -> str:
    """Write tables, plots and all numbers; returns the tables."""
    text = trial.describe() + "\n"
    for metric, label in METRICS.items():
        text += f"\n{label}:\n\n{report.size_table(runs, metric)}"
        report.plot_sizes(runs, metric, label, output / f"{metric}.png")
        if "average" in report.by_name(runs):
            report.plot_gain(runs, metric, "average", output / f"{metric}_gain.png")
    text += _batch_lines(runs, str(max(trial.sizes)))
    report.plot_entropy(runs, output / "entropy.png")
    (output / "tables.md").write_text(text)
    rows = [run._asdict() | {"curves": None} for run in runs]
    (output / "results.json").write_text(json.dumps(rows, indent=2) + "\n")
    return text


def _batch_lines(runs: Sequence[report.FusionRun], size: str) -> str:
    lines = []
    for run in runs:
        if not run.more:
            continue
        cells = [
            f"{n}: {100 * found['tar_1e-4'][size]:.2f}"
            for n, found in run.more["batches"].items()
        ]
        orders = 100 * np.array([o["tar_1e-4"][size] for o in run.more["orders"]])
        lines.append(
            f"{run.name}, seed {run.seed}: TAR at FAR 1e-4 of {size} images by N': "
            f"{', '.join(cells)}; in five random orders of four batches: "
            f"{orders.mean():.2f} ± {orders.std(ddof=1):.2f}"
        )
    return "\n" + "\n\n".join(lines) + "\n" if lines else ""


def _plan(
    config: ConfigDict, options: argparse.Namespace
) -> list[tuple[str, int, dict[str, Any]]]:
    """Name, seed and changes of the config of every run."""
    for name in ("seeds", "clusters", "methods", "variants"):
        check_different("set_fusion", name, getattr(options, name))
    plan = []
    for method in options.methods:
        own = [0] if method in UNTRAINED else options.seeds
        plan += [(method, seed, {"fusion.method": method}) for seed in own]
    caface = {"fusion.method": "cluster_aggregate"}
    for count in options.clusters:
        changes = {**caface, "fusion.num_clusters": count}
        plan.append((f"cluster_aggregate M={count}", 0, changes))
    for variant in options.variants:
        changes = {**caface, "fusion.variant": variant}
        plan.append((f"cluster_aggregate {variant}", 0, changes))
    for _, _, changes in plan:  # before any run
        checked = config.copy_and_resolve_references()
        checked.update_from_flattened_dict(changes)
        make_model(checked.fusion, embed_dim=8)
    return plan


TAKES_CONFIG = True


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    shared.add_config(parser, "configs/set_fusion.py")
    add = parser.add_argument
    add(
        "--methods",
        type=words,
        default=list(METHODS),
        metavar="NAME,NAME",
        help=f"to compare ({','.join(METHODS)}); also inlier_average, proxy_fusion",
    )
    shared.add_seeds(parser)
    add(
        "--clusters",
        type=shared.whole_numbers,
        default=[],
        metavar="N,N",
        help="other M of cluster_aggregate, seed 0",
    )
    add(
        "--variants",
        type=words,
        default=[],
        metavar="NAME,NAME",
        help="other variants of cluster_aggregate, seed 0",
    )
    add("--gallery", default="", help="features of more people to search")
    add(
        "--sizes",
        type=shared.whole_numbers,
        default=[1, 2, 4, 8, 16, 32, 64],
        metavar="N,N",
        help="of probes (1,2,4,8,16,32,64)",
    )
    add("--trained", default="", help="output of an earlier study: train nothing anew")
    shared.add_report(parser, "reports/set_fusion")


def run(options: argparse.Namespace) -> None:
    """Run the experiment."""
    config, output = shared.read_config(options), options.output
    plan = _plan(config, options)
    trial = Trial(config, options.gallery, options.sizes)
    output.mkdir(parents=True, exist_ok=True)
    earlier = pathlib.Path(options.trained) / "runs" if options.trained else None
    runs = []
    for name, seed, changes in plan:
        changed = config.copy_and_resolve_references()
        changed.update_from_flattened_dict({**changes, "seed": seed})
        runs.append(run_one(changed.lock(), trial, output, name, seed, runs=earlier))
    sys.stdout.write(write_report(runs, trial, output))
