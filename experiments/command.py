"""Find an experiment by its name and run it."""

import pathlib
from collections.abc import Sequence

from kprpe_jax.commands.main import choose_command, first_help_line, run_command

_ROOT = pathlib.Path(__file__).parent


def find_experiments() -> dict[str, tuple[str, str]]:
    """Name -> module and first line of help of every experiment in a paper's folder."""
    found = {path: first_help_line(path) for path in sorted(_ROOT.glob("*/*.py"))}
    return {
        path.stem: (f"experiments.{path.parent.name}.{path.stem}", text)
        for path, text in found.items()
        if text is not None
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `python -m experiments NAME ...`; without a name list all of them.

    Args:
      arguments: of the command line, `sys.argv[1:]` by default.
    """
    found = find_experiments()
    texts = {name: text for name, (_, text) in found.items()}
    usage = "python -m experiments NAME"
    chosen = choose_command(arguments, texts, usage, "experiment")
    if chosen:
        name, rest = chosen
        run_command(found[name][0], f"python -m experiments {name}", rest)
