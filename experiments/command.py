"""Run the command line of an experiment."""

import argparse
import sys
from collections.abc import Callable, Sequence

from kprpe_jax.commands.main import split_overrides
from kprpe_jax.core.compile_cache import use_compile_cache


def run(
    parser: argparse.ArgumentParser,
    body: Callable[[argparse.Namespace], None],
    arguments: Sequence[str] | None = None,
) -> None:
    """Parse the arguments and run an experiment.

    A ValueError is the user's mistake: its sentence goes to stderr, the exit status is
    2.

    Args:
      parser: of the options.
      body: what the experiment does; `options.overrides` holds `--config.field=value`.
      arguments: of the command line, `sys.argv[1:]` by default.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    use_compile_cache()
    rest, overrides = split_overrides(given)
    options = parser.parse_args(rest)
    options.overrides = overrides
    try:
        body(options)
    except ValueError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
