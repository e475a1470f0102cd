"""Run a verb many times in one interpreter: `python -m tests.many_runs train`.

Reads a JSON list of argument lists; writes a JSON list of [exit code, stdout, stderr].
"""

import contextlib
import io
import json
import sys

from kprpe_jax.commands.main import main


def run(verb, arguments):
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([verb, *arguments])
        except SystemExit as stop:
            code = stop.code
    return code, out.getvalue(), err.getvalue()


if __name__ == "__main__":
    json.dump([run(sys.argv[1], a) for a in json.load(sys.stdin)], sys.stdout)
