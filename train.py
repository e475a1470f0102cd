"""Train: python train.py --config configs/digits.py --workdir runs/digits.

Fields of the config are overridden by --config.section.field=value. Several processes
find each other by themselves under SLURM and on TPU slices, else by --coordinator,
--num_processes and --process_id.
"""

import sys

from absl import app, flags, logging

from kprpe_jax.training import config as config_lib
from kprpe_jax.training import loop, mesh

_CONFIG = flags.DEFINE_string("config", None, "Config file, path.py[:arg].")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for all that the run writes.")
_COORDINATOR = flags.DEFINE_string("coordinator", None, "host:port, or auto.")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Processes in all.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Number of this process, from 0")
_DEBUG = flags.DEFINE_bool("debug", False, "Show the traceback of an error.")


def _main(overrides: list[str], surplus: list[str]) -> None:
    if surplus:
        raise ValueError(f"train.py: {surplus[0]!r} is not a flag; write --name=value")
    if _CONFIG.value is None or _WORKDIR.value is None:
        raise ValueError("train.py needs --config path.py and --workdir folder")
    config = config_lib.load_config(_CONFIG.value, overrides)
    mesh.initialize_distributed(
        _COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value
    )
    loop.train(config, _WORKDIR.value)


def main(arguments: tuple[list[str], list[str]]) -> None:
    """Run; a fault of the user is one sentence and exit code 2, NaN is exit code 1."""
    logging.set_verbosity(logging.WARNING)  # Orbax tells every file it writes
    try:
        _main(*arguments)
    except (ValueError, loop.NonFiniteError) as error:
        if _DEBUG.value:
            raise
        sys.stderr.write(f"{error}\n")
        sys.exit(2 if isinstance(error, ValueError) else 1)


def parse_flags(argv: list[str]) -> tuple[list[str], list[str]]:
    """Parse the flags; hand overrides of the config and surplus arguments on."""
    rest, overrides = config_lib.split_overrides(argv)
    return overrides, flags.FLAGS(rest)[1:]


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
