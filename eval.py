"""Evaluate: python eval.py --config configs/digits.py --workdir runs/digits.

Restores a checkpoint, runs the config's evaluators, prints a table and writes it as
JSON beside the run. Fields of the config are overridden by
--config.section.field=value.
"""

import json
import pathlib
import sys

import jax
from absl import app, flags, logging

from kprpe_jax.training import config as config_lib
from kprpe_jax.training import mesh
from kprpe_jax.training.evaluate import evaluate

_CONFIG = flags.DEFINE_string("config", None, "Config file, path.py[:arg].")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder that train.py wrote.")
_CHECKPOINT = flags.DEFINE_string("checkpoint", "best", "best, last, or a step.")
_EVALUATORS = flags.DEFINE_list("evaluators", [], "Some of the task's; default all.")
_OUTPUT = flags.DEFINE_string("output", None, "JSON file; default WORKDIR/eval.json.")
_COORDINATOR = flags.DEFINE_string("coordinator", None, "host:port, or auto.")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Processes in all.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Number of this process, from 0")
_DEBUG = flags.DEFINE_bool("debug", False, "Show the traceback of an error.")


def _main(overrides: list[str], surplus: list[str]) -> None:
    if surplus:
        raise ValueError(f"eval.py: {surplus[0]!r} is not a flag; write --name=value")
    if _CONFIG.value is None or _WORKDIR.value is None:
        raise ValueError("eval.py needs --config path.py and --workdir folder")
    config = config_lib.load_config(_CONFIG.value, overrides)
    mesh.initialize_distributed(
        _COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value
    )
    results = evaluate(
        config, _WORKDIR.value, which=_CHECKPOINT.value, evaluators=_EVALUATORS.value
    )
    if jax.process_index():
        return  # every process has the same numbers; process 0 writes them
    output = pathlib.Path(_OUTPUT.value or pathlib.Path(_WORKDIR.value, "eval.json"))
    output.write_text(json.dumps(results, indent=2) + "\n")
    width = max(map(len, results))
    for name, value in results.items():
        sys.stdout.write(f"{name:<{width}}  {value:.6g}\n")
    sys.stdout.write(f"written to {output}\n")


def main(arguments: tuple[list[str], list[str]]) -> None:
    """Run; a fault of the user is one sentence and exit code 2."""
    logging.set_verbosity(logging.WARNING)  # Orbax tells every file it reads
    try:
        _main(*arguments)
    except ValueError as error:
        if _DEBUG.value:
            raise
        sys.stderr.write(f"{error}\n")
        sys.exit(2)


def parse_flags(argv: list[str]) -> tuple[list[str], list[str]]:
    """Parse the flags; hand overrides of the config and surplus arguments on."""
    rest, overrides = config_lib.split_overrides(argv)
    return overrides, flags.FLAGS(rest)[1:]


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
