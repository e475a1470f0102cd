"""Train a network by a config, or continue a run that was stopped.

    kprpe-jax train --config digits --workdir runs/digits
    kprpe-jax train --config configs/lfw.py:rpe --workdir runs/rpe \\
        --config.steps=500 --config.optimizer.learning_rate=1e-4

A config is a name (digits, lfw, synthetic_faces, ...) or a path, with :ARG where it
takes an argument. Its fields are overridden by --config.section.field=value;
--config.model.weights=SPEC starts from weights: NAME:FILE, a file that `export` wrote,
or a run. Several processes find each other by themselves on Cloud TPUs, GKE, SLURM and
Open MPI, else by --coordinator, --num-processes and --process-id.
"""

import argparse

from kprpe_jax.commands import options as shared

TAKES_CONFIG = True
TAKES_BUCKETS = ("--workdir", "--config.data.dir")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--config", metavar="CONFIG", required=True, help="NAME[:ARG] or PATH[:ARG]"
    )
    parser.add_argument(
        "--workdir",
        metavar="DIR",
        required=True,
        help="folder of the run, also gs://BUCKET/DIR or s3://BUCKET/DIR",
    )
    parser.add_argument(
        "--extend",
        action="store_true",
        help="train the run in DIR on to more --config.steps, under their schedule",
    )
    parser.add_argument(
        "--profile-server",
        metavar="PORT",
        type=shared.positive,
        help="let xprof and TensorBoard capture traces of this process from PORT",
    )
    shared.add_processes(parser)


def run(options: argparse.Namespace) -> None:
    """Run the train command."""
    from kprpe_jax.core.processes import initialize_distributed
    from kprpe_jax.training import loop
    from kprpe_jax.training.config import load_config
    from kprpe_jax.training.profiling import serve_profiles

    config = load_config(options.config, options.overrides)
    found_by = initialize_distributed(
        options.coordinator, options.num_processes, options.process_id
    )
    if options.profile_server:
        serve_profiles(options.profile_server)
    loop.train(config, options.workdir, extend=options.extend, found_by=found_by)
