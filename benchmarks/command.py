"""Find a benchmark by its name and run it."""

import pathlib
from collections.abc import Sequence

from kprpe_jax.commands.main import choose_command, first_help_line, run_command

_ROOT = pathlib.Path(__file__).parent


def find_benchmarks() -> dict[str, str]:
    """Name -> first line of help of every benchmark."""
    found = {path.stem: first_help_line(path) for path in sorted(_ROOT.glob("*.py"))}
    return {name: text for name, text in found.items() if text is not None}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `python -m benchmarks NAME ...`; without a name list all of them.

    Args:
      arguments: of the command line, `sys.argv[1:]` by default.
    """
    usage = "python -m benchmarks NAME"
    chosen = choose_command(arguments, find_benchmarks(), usage, "benchmark")
    if chosen:
        name, rest = chosen
        run_command(f"benchmarks.{name}", f"python -m benchmarks {name}", rest)
