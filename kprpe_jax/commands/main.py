"""Run a verb: parse its options, run it, and turn errors into one sentence."""

import argparse
import ast
import contextlib
import difflib
import errno
import importlib
import io
import logging
import pathlib
import re
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from types import ModuleType
from typing import Any, NoReturn

from kprpe_jax.commands import VERBS
from kprpe_jax.commands.buckets import check_buckets
from kprpe_jax.core.compile_cache import use_compile_cache
from kprpe_jax.core.paths import bucket_errors, in_users_terms, is_bucket


class RunError(Exception):
    """What the command was asked for failed, though nothing was wrong with the asking.

    Its sentence goes to stderr, the exit status is 1.
    """


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one sentence that names the nearest option."""

    def parse_args(self, args=None, namespace=None):
        """Parse; a mistyped option is told before a missing one."""
        known = [o for action in self._actions for o in action.option_strings]
        for argument in sys.argv[1:] if args is None else args:
            given = argument.partition("=")[0]
            if re.match(r"--\w", given) and given not in known:
                near = difflib.get_close_matches(given, known, n=1, cutoff=0.0)
                self.error(f"unknown option {given}; did you mean {near[0]}?")
        return super().parse_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the options; exit status 2."""
        found = re.search(r"unrecognized arguments: (\S+)", message)
        if found:
            message = f"{found[1]!r} belongs to no option"
        sys.stderr.write(f"error: {message} (see {self.prog} --help)\n")
        sys.exit(2)


def make_parser(module: ModuleType, prog: str) -> Parser:
    """Make the parser of a command: its module's docstring is the help text."""
    parser = Parser(
        prog=prog,
        description=(module.__doc__ or "").strip(),
        formatter_class=partial(
            argparse.RawDescriptionHelpFormatter, max_help_position=28, width=100
        ),
        allow_abbrev=False,
    )
    module.add_options(parser)
    parser.add_argument(
        "--debug", action="store_true", help="show an error's traceback"
    )
    return parser


def split_overrides(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Take the `--config.field=value` arguments out of a command line.

    Returns: the other arguments, in order; the overrides as "field=value".
    """
    others, overrides = [], []
    for argument in arguments:
        if re.match(r"--?config\.", argument):
            overrides.append(argument.lstrip("-").removeprefix("config."))
        else:
            others.append(argument)
    return others, overrides


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `kprpe-jax VERB ...`; see `run_command`.

    Args:
      arguments: of the command line, `sys.argv[1:]` by default.
    """
    chosen = choose_command(
        arguments,
        VERBS,
        "kprpe-jax VERB",
        "verb",
        "Recognize people in bad pictures. VERB --help tells the options of each.\n\n",
    )
    if chosen:
        verb, rest = chosen
        name = "import_" if verb == "import" else verb  # `import` is a keyword
        run_command(f"kprpe_jax.commands.{name}", f"kprpe-jax {verb}", rest)


def choose_command(
    arguments: Sequence[str] | None,
    known: Mapping[str, str],
    usage: str,
    noun: str,
    about: str = "",
) -> tuple[str, list[str]] | None:
    """Read the name of a command; without one, list all.

    An unknown name ends the process with one sentence and exit status 2.

    Args:
      arguments: of the command line; None = `sys.argv[1:]`.
      known: name -> what the command does.
      usage: how commands are called, such as "kprpe-jax VERB".
      noun: what a command is called.
      about: text above the list.
    Returns: the name and the other arguments; None where the list was printed.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        width = max(map(len, known))
        lines = [f"  {name:<{width}}  {text}" for name, text in known.items()]
        sys.stdout.write(f"usage: {usage} [options]\n\n{about}")
        sys.stdout.write("\n".join(lines) + "\n")
        return None
    name, *rest = arguments
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
        sys.stderr.write(f"error: unknown {noun} {name!r}; did you mean {near}?\n")
        sys.exit(2)
    return name, rest


def first_help_line(path: pathlib.Path) -> str | None:
    """The first line of help of a command's file; None where it is no command."""
    text = path.read_text("utf-8")
    if "\ndef add_options(" not in text:
        return None
    return (ast.get_docstring(ast.parse(text)) or "").split("\n")[0]


def run_command(name: str, prog: str, arguments: Sequence[str]) -> None:
    """Import the module of a command, parse its options and run it.

    A ValueError is the user's mistake: its sentence goes to stderr, exit status 2. A
    `RunError`, a FloatingPointError of training, or an OSError, such as a full disk, is
    a run that failed: status 1.

    Args:
      name: of a module with `add_options(parser)`, `run(options)` and its docstring as
        help; where it has TAKES_CONFIG, `options.overrides` are the
        `--config.field=value`; TAKES_BUCKETS names options that take paths in buckets,
        as those do that take a SPEC.
      prog: how the command is called, for messages.
      arguments: its options.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files may be no UTF-8
        sys.stdout.reconfigure(errors="backslashreplace")
    use_compile_cache()  # the module may import JAX
    module = importlib.import_module(name)
    takes_config = getattr(module, "TAKES_CONFIG", False)
    rest, overrides = split_overrides(arguments) if takes_config else (arguments, [])
    options = make_parser(module, prog).parse_args(rest)
    options.overrides = overrides
    try:
        _quiet_absl(debug=options.debug)
        taken = getattr(module, "TAKES_BUCKETS", ())
        with contextlib.ExitStack() as stack:
            for path in check_buckets(rest, overrides, taken):
                stack.enter_context(bucket_errors(path))
            module.run(options)
    except (ValueError, RunError, FloatingPointError) as error:
        if options.debug:
            raise
        sys.stderr.write(f"error: {in_users_terms(' '.join(str(error).split()))}\n")
        sys.exit(2 if isinstance(error, ValueError) else 1)
    except BrokenPipeError:  # `| head` has seen enough
        sys.stderr.close()
    except OSError as error:
        if options.debug:
            raise
        sys.stderr.write(f"error: {_about_file(error)}\n")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _about_file(error: OSError) -> str:
    """What a file or its disk refused, and what helps, in one sentence."""
    reason = error.strerror or " ".join(str(error).split())
    if error.filename is not None:
        reason = f"{error.filename}: {reason}"
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    if error.filename is not None and is_bucket(str(error.filename)) and not full:
        return (
            f"{reason}; look at the bucket, your rights and the network, and run the "
            "same command again"
        )
    advice = "free space" if full else "look at the path, its rights and its disk"
    return f"{reason}; {advice} and run the same command again"


class _Lines(logging.Handler):
    """Writes what the library tells as plain lines to stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one."""
        sys.stderr.write(self.format(record) + "\n")


def _show_unraisable(unraisable: Any) -> None:
    """Show an error that reaches nobody.

    Not those of TensorStore's threads, whose save on a full disk was given up.
    """
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def _quiet_absl(*, debug: bool) -> None:
    """Silence Orbax, tell our own lines; a command has no absl flags for Grain.

    What Orbax logs as errors it also raises; with `debug` both are shown.
    """
    from absl import flags
    from absl import logging as absl_logging

    # Orbax tells every file it touches.
    absl_logging.set_verbosity(absl_logging.ERROR if debug else absl_logging.FATAL)
    if not debug:  # of the tasks in which it writes
        for name in ("asyncio", "gcsfs", "s3fs", "aiobotocore", "botocore"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        sys.unraisablehook = _show_unraisable
    logger = logging.getLogger("kprpe_jax")
    if not any(isinstance(x, _Lines) for x in logger.handlers):
        logger.addHandler(_Lines())
    logger.setLevel(logging.INFO)
    logger.propagate = False
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
