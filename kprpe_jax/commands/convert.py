"""Convert a run of an older version, once; every command reads it from then on.

    kprpe-jax convert runs/lfw

The old config stays beside the new one as config.v1.json. docs/versions.md tells which
versions read which.
"""

import argparse
import sys


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("run", metavar="RUN", help="folder of the run")


def run(options: argparse.Namespace) -> None:
    """Run the convert command."""
    from kprpe_jax.training.convert import convert_run
    from kprpe_jax.training.runs import VERSION

    done = convert_run(options.run)
    said = "converted to" if done else "is already of"
    sys.stdout.write(f"{options.run}: {said} version {VERSION}\n")
