"""What the commands share: which network, which gallery, errors as one sentence."""

import argparse
import sys
from collections.abc import Callable, Sequence

from kprpe_jax.core.compile_cache import use_compile_cache
from kprpe_jax.gallery.encoder import (
    Encoder,
    mobilefacenet_encoder,
    run_encoder,
)
from kprpe_jax.gallery.gallery import Gallery
from kprpe_jax.gallery.photos import Prepare, aligned_photos, detected_photos
from kprpe_jax.gallery.second_stage import (
    SecondStage,
    earth_movers_stage,
    network_stage,
)
from kprpe_jax.matching.patch_weights import DEFAULT_WEIGHTING, WEIGHTINGS
from kprpe_jax.training.config import load_config, split_overrides


def make_parser(description: str) -> argparse.ArgumentParser:
    """A parser with what every command needs."""
    parser = argparse.ArgumentParser(
        description=description.split("\n")[0], allow_abbrev=False
    )
    add = parser.add_argument
    add("--gallery", required=True, help="file of the gallery")
    add("--photos", help="the photos")
    add_network(parser)
    add("--detector", help="weights of RetinaFace; without, photos must be aligned")
    return parser


def add_network(parser: argparse.ArgumentParser) -> None:
    """Options that name the network, for `read_encoder`."""
    add = parser.add_argument
    add("--weights", help="weights of MobileFaceNet; or give --config and --workdir")
    add("--config", help="config of a run on faces, path.py[:arg]")
    add("--workdir", help="folder of that run")
    add(
        "--checkpoint",
        default="best",
        help="of the run: best (the last, if its config has no best_metric), last or a "
        "step",
    )


def add_ranking(parser: argparse.ArgumentParser) -> None:
    """Options of the second stage, for `read_second_stage`, and of the answers."""
    add = parser.add_argument
    add("--k", type=int, help="candidates of the second stage, 0 = none")
    add("--alpha", type=float, default=0.7, help="share of the second stage's score")
    add("--weighting", choices=WEIGHTINGS, help="of the earth mover's patches: apc")
    add("--pair_workdir", help="folder of a run on pairs, in place of earth mover's")
    add("--pair_checkpoint", default="last", help="of that run: last, best or a step")
    add("--ranks", type=int, default=5, help="answers to show")


def run(
    parser: argparse.ArgumentParser,
    body: Callable[[argparse.Namespace], None],
    arguments: Sequence[str] | None = None,
) -> None:
    """Parse the arguments and run a command.

    A ValueError is the user's fault: its sentence goes to stderr, the exit code is 2.

    Args:
      parser: from `make_parser`.
      body: what the command does.
      arguments: of the command line, `sys.argv[1:]` by default.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    use_compile_cache()
    rest, overrides = split_overrides(["", *given])
    options = parser.parse_args(rest[1:])
    options.overrides = overrides
    try:
        body(options)
    except ValueError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)


def read_encoder(options: argparse.Namespace) -> Encoder:
    """Load the network that the options name.

    Raises: ValueError: none or two are named; as `mobilefacenet_encoder` and
      `run_encoder`.
    """
    is_run = options.config is not None and options.workdir is not None
    if (options.weights is not None) == is_run:
        raise ValueError(
            "the command needs one network: --weights file, or --config path.py and "
            "--workdir folder"
        )
    if options.weights is not None:
        return mobilefacenet_encoder(options.weights)
    config = load_config(options.config, options.overrides)
    return run_encoder(config, options.workdir, checkpoint=options.checkpoint)


def read_prepare(options: argparse.Namespace, encoder: Encoder) -> Prepare:
    """How photos become faces."""
    if options.detector is None:
        return aligned_photos(encoder)
    return detected_photos(encoder, options.detector)


def read_second_stage(options: argparse.Namespace, gallery: Gallery) -> SecondStage:
    """What compares patches: a run on pairs, or the earth mover's distance.

    Raises: ValueError: both are asked for; as `network_stage`.
    """
    if options.pair_workdir is None:
        return earth_movers_stage(options.weighting or DEFAULT_WEIGHTING)
    if options.weighting is not None:
        raise ValueError(
            "--weighting is the earth mover's, which --pair_workdir replaces; give one "
            "of them"
        )
    return network_stage(
        options.pair_workdir, gallery.model, checkpoint=options.pair_checkpoint
    )
