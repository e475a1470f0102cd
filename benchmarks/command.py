"""Find a benchmark by its name and run it."""

import ast
import difflib
import importlib
import pathlib
import sys
from collections.abc import Sequence

from kprpe_jax.commands.main import run_command

_ROOT = pathlib.Path(__file__).parent


def find_benchmarks() -> dict[str, str]:
    """Name -> first line of help of every benchmark."""
    found = {}
    for path in sorted(_ROOT.glob("*.py")):
        text = path.read_text("utf-8")
        if "\ndef add_options(" in text:
            help_text = ast.get_docstring(ast.parse(text)) or ""
            found[path.stem] = help_text.split("\n")[0]
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `python -m benchmarks NAME ...`; without a name list all of them.

    Args:
      arguments: of the command line, `sys.argv[1:]` by default.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    found = find_benchmarks()
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        width = max(map(len, found))
        lines = [f"  {name:<{width}}  {text}" for name, text in found.items()]
        sys.stdout.write(
            "usage: python -m benchmarks NAME [options]\n\n" + "\n".join(lines) + "\n"
        )
        return
    name, *rest = arguments
    if name not in found:
        near = difflib.get_close_matches(name, found, n=1, cutoff=0.0)[0]
        sys.stderr.write(f"error: unknown benchmark {name!r}; did you mean {near}?\n")
        sys.exit(2)
    module = importlib.import_module(f"benchmarks.{name}")
    run_command(module, f"python -m benchmarks {name}", rest)


def words(text: str) -> list[str]:
    """Comma-separated words."""
    return [word for word in text.split(",") if word]
