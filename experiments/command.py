"""Find an experiment by its name and run it."""

import ast
import difflib
import importlib
import pathlib
import sys
from collections.abc import Sequence

from kprpe_jax.commands.main import run_command

_ROOT = pathlib.Path(__file__).parent


def find_experiments() -> dict[str, tuple[str, str]]:
    """Name -> module and first line of help of every experiment in a paper's folder."""
    found = {}
    for path in sorted(_ROOT.glob("*/*.py")):
        text = path.read_text("utf-8")
        if "\ndef add_options(" in text:
            help_line = (ast.get_docstring(ast.parse(text)) or "").split("\n")[0]
            module = f"experiments.{path.parent.name}.{path.stem}"
            found[path.stem] = module, help_line
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `python -m experiments NAME ...`; without a name list all of them.

    Args:
      arguments: of the command line, `sys.argv[1:]` by default.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    found = find_experiments()
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        width = max(map(len, found))
        lines = [f"  {name:<{width}}  {text}" for name, (_, text) in found.items()]
        sys.stdout.write(
            "usage: python -m experiments NAME [options]\n\n" + "\n".join(lines) + "\n"
        )
        return
    name, *rest = arguments
    if name not in found:
        near = difflib.get_close_matches(name, found, n=1, cutoff=0.0)[0]
        sys.stderr.write(f"error: unknown experiment {name!r}; did you mean {near}?\n")
        sys.exit(2)
    module = importlib.import_module(found[name][0])
    run_command(module, f"python -m experiments {name}", rest)
