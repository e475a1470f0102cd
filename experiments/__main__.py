"""Run an experiment: python -m experiments NAME [options].

Without a name, or with --help, all names with what each does.
"""

import importlib
import pathlib
import sys

_ROOT = pathlib.Path(__file__).parent


def find_experiments() -> dict[str, str]:
    """Name -> module of every experiment, a file with `start` in a paper's folder."""
    return {
        path.stem: f"experiments.{path.parent.name}.{path.stem}"
        for path in sorted(_ROOT.glob("*/*.py"))
        if "\ndef start(" in path.read_text("utf-8")
    }


def main(arguments: list[str]) -> None:
    """Run the experiment that the first argument names with the other arguments."""
    found = find_experiments()
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.stdout.write(__doc__ + "\n" + "\n".join(found) + "\n")
        return
    name, *rest = arguments
    if name not in found:
        sys.stderr.write(f"unknown experiment {name!r}; use one of {' '.join(found)}\n")
        sys.exit(2)
    module = importlib.import_module(found[name])
    sys.argv = [f"experiments {name}", *rest]
    module.start()


main(sys.argv[1:])
