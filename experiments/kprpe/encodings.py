"""Compare position encodings: train each, test each under affine distortion.

Source: KP-RPE, Fig. 1; on faces Sec. 4.2 (aligned and unaligned test sets).

    python -m experiments encodings --config configs/digits.py \
        --positions absolute,kprpe_multihead --seeds 0,1,2 --output reports/digits
    python -m experiments encodings --config configs/synthetic_faces.py \
        --positions absolute,kprpe_multihead,ir18 --output reports/faces
    python -m experiments encodings --config configs/gait.py \
        --positions table,kprpe --output reports/gait

On faces an iResNet may stand beside the encodings (ir18, ir34, ir50, ir101).

A study that was stopped continues where it was.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Sequence
from functools import partial

from ml_collections import ConfigDict

from experiments import options as shared
from experiments.kprpe import offsets
from experiments.whole_run import check_different, train_and_measure
from kprpe_jax.backbones import iresnet, swin_gait
from kprpe_jax.commands.options import words
from kprpe_jax.position.encoding import KEYPOINT_FORMS, POSITIONS
from kprpe_jax.report import gait, robustness
from kprpe_jax.tasks import networks
from kprpe_jax.training.evaluate import evaluate


def choose_network(
    config: ConfigDict,
    network: str,
    *,
    seed: int,
    widths: Sequence[int] = iresnet.WIDTHS,
) -> ConfigDict:
    """The same run with another encoding, or with an iResNet in place of the ViT.

    Args:
      config: of a ViT.
      network: a value of config.model.position, or of `iresnet.PRESETS`.
      seed: of the run.
      widths: channels of an iResNet's stages; fewer make it fit a CPU.
    """
    chosen = config.copy_and_resolve_references()
    with chosen.unlocked():
        chosen.seed = seed
        if network not in iresnet.PRESETS:
            chosen.model.position = network
            return chosen
        chosen.backbone = "iresnet"
        chosen.model = ConfigDict(
            {
                **iresnet.PRESETS[network],
                "widths": tuple(widths),
                "image_size": tuple(config.model.image_size),
                "output_dim": config.model.output_dim,
                "dtype": config.model.dtype,
            }
        )
    return chosen


def run_study(
    config: ConfigDict,
    output: pathlib.Path,
    *,
    positions: Sequence[str],
    seeds: Sequence[int],
    widths: Sequence[int] = iresnet.WIDTHS,
) -> list[robustness.Run]:
    """Train and evaluate every network with every seed.

    The last checkpoint is evaluated, not the best one: the test set chooses nothing.

    Args:
      config: of all runs, but for the network and the seed.
      output: runs go to output/runs/POSITION-SEED.
      positions: networks as `choose_network` names them.
      seeds: values of config.seed.
      widths: of `choose_network`.
    Returns: one `Run` per network and seed.
    Raises: StoppedError: SIGTERM ended a training; what was done is kept.
    Raises: ValueError: an unknown network, or one or a seed named twice, before any
      run; a folder of a run with another config; faults as `loop.train`.
    """
    check_different("encodings", "positions", positions)
    check_different("encodings", "seeds", seeds)
    known = POSITIONS
    if config.task == "face_recognition":
        known += tuple(iresnet.PRESETS)
    if config.task == "gait":
        known = swin_gait.POSITIONS
    for position in positions:
        if position not in known:
            raise ValueError(
                f"encodings: unknown position {position!r}; use some of {known}."
            )
    runs = []
    for seed in seeds:
        for position in positions:
            one = choose_network(config, position, seed=seed, widths=widths)
            workdir = output / "runs" / f"{position}-{seed}"
            measure = partial(evaluate, one, workdir, checkpoint="last")
            results = train_and_measure(one, workdir, measure)
            curves = [
                json.loads(line)
                for line in (workdir / "metrics.jsonl").read_text().splitlines()
            ]
            runs.append(robustness.Run(position, seed, results, curves))
    return runs


def _draw_offsets(
    config: ConfigDict, output: pathlib.Path, position: str, seed: int
) -> None:
    config = choose_network(config, position, seed=seed)
    rows, columns = networks.make_network(config).grid
    offsets.draw(
        config,
        output / "runs" / f"{position}-{seed}",
        output / f"offsets_{position}.png",
        query=(rows // 2, columns // 2),
        layers=range(config.model.depth),
        heads=[0],
        num_images=4,
    )


TAKES_CONFIG = True


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    shared.add_config(parser)
    parser.add_argument(
        "--positions",
        type=words,
        default=["absolute", "kprpe_multihead"],
        metavar="NAME,NAME",
        help="encodings to compare (absolute,kprpe_multihead)",
    )
    parser.add_argument(
        "--iresnet-widths",
        type=shared.whole_numbers,
        default=list(iresnet.WIDTHS),
        metavar="N,N,N,N",
        help="channels of iResNet stages (64,128,256,512)",
    )
    shared.add_seeds(parser)
    shared.add_report(parser, "reports/digits")


def run(options: argparse.Namespace) -> None:
    """Run the experiment."""
    config, output = shared.read_config(options), options.output
    runs = run_study(
        config,
        output,
        positions=options.positions,
        seeds=options.seeds,
        widths=options.iresnet_widths,
    )
    if config.task != "classification":
        evals = config.evals
        layout = gait.layout(evals) if config.task == "gait" else None
        layout = layout or robustness.faces(evals)
        sys.stdout.write(robustness.write_report(runs, output, layout))
        return
    text = robustness.write_report(runs, output)
    for position in options.positions:
        if position in KEYPOINT_FORMS:
            _draw_offsets(config, output, position, options.seeds[0])
    sys.stdout.write(text)
