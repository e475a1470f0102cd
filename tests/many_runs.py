"""Run a command many times in one interpreter: `python -m tests.many_runs train`.

Reads a JSON list of argument lists; writes a JSON list of [exit code, stdout, stderr].
"""

import contextlib
import importlib
import io
import json
import sys

from absl import flags


def run(command, arguments):
    out, err, code = io.StringIO(), io.StringIO(), 0
    flags.FLAGS.unparse_flags()
    for name in flags.FLAGS:
        flags.FLAGS[name].unparse()  # back to its default
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            command.main(command.parse_flags([command.__name__, *arguments]))
        except SystemExit as stop:
            code = stop.code
    return code, out.getvalue(), err.getvalue()


if __name__ == "__main__":
    command = importlib.import_module(sys.argv[1])
    json.dump([run(command, a) for a in json.load(sys.stdin)], sys.stdout)
