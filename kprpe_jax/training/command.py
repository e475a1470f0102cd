"""What the commands share: flags, overrides of the config, errors as one sentence."""

import functools
import sys
from collections.abc import Callable

from absl import flags, logging
from ml_collections import ConfigDict

from kprpe_jax.core import mesh
from kprpe_jax.core.compile_cache import use_compile_cache
from kprpe_jax.training import config as config_lib

_CONFIG = flags.DEFINE_string("config", None, "Config file, path.py[:arg].")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
_COORDINATOR = flags.DEFINE_string("coordinator", None, "host:port, or auto.")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Processes in all.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Number of this process, from 0")
_DEBUG = flags.DEFINE_bool("debug", False, "Show the traceback of an error.")

Arguments = tuple[list[str], list[str]]


def parse_flags(argv: list[str]) -> Arguments:
    """Parse the flags, for `absl.app.run`.

    Returns: the overrides of the config as "field=value"; arguments that are no flags.
    """
    rest, overrides = config_lib.split_overrides(argv)
    return overrides, flags.FLAGS(rest)[1:]


def command(
    run: Callable[[list[str]], None], failures: tuple[type[Exception], ...] = ()
) -> Callable[[Arguments], None]:
    """Turn `run(overrides)` into a main function for `absl.app.run`.

    A ValueError is the user's fault: its sentence goes to stderr, the exit code is 2.

    Args:
      run: what the command does.
      failures: errors of the run itself: their sentence, and exit code 1.
    """

    @functools.wraps(run)
    def main(arguments: Arguments) -> None:
        logging.set_verbosity(logging.WARNING)  # Orbax tells every file it writes
        use_compile_cache()
        overrides, surplus = arguments
        try:
            if surplus:
                raise ValueError(f"{surplus[0]!r} is not a flag; write --name=value")
            run(overrides)
        except (ValueError, *failures) as error:
            if _DEBUG.value:
                raise
            sys.stderr.write(f"{error}\n")
            sys.exit(1 if isinstance(error, failures) else 2)

    return main


def read_config(overrides: list[str]) -> ConfigDict:
    """Load --config with the overrides, and join the other processes, if any.

    Raises: ValueError: no --config; a fault in the file, an override or the process
      flags.
    """
    if _CONFIG.value is None:
        raise ValueError("the command needs --config path.py; got none")
    config = config_lib.load_config(_CONFIG.value, overrides)
    mesh.initialize_distributed(
        _COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value
    )
    return config


def read_workdir() -> str:
    """Give --workdir.

    Raises: ValueError: there is none.
    """
    if _WORKDIR.value is None:
        raise ValueError("the command needs --workdir folder; got none")
    return _WORKDIR.value
