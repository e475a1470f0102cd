"""Every benchmark by its name: help, and mistakes as one sentence."""

import importlib
import pathlib

import pytest

from benchmarks.command import find_benchmarks, main
from benchmarks.suite import SUITE
from kprpe_jax.commands.main import make_parser
from kprpe_jax.commands.options import words

FOUND = find_benchmarks()


@pytest.mark.parametrize("name", FOUND)
def test_help_and_options(name, capsys):
    module = importlib.import_module(f"benchmarks.{name}")
    assert callable(module.run)
    with pytest.raises(SystemExit) as stopped:
        main([name, "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert f"python -m benchmarks {name}" in text
    assert "_" not in "".join(w for w in text.split() if w.startswith("--"))


@pytest.mark.parametrize(("name", "arguments"), [(n, a) for n, *a in SUITE])
def test_options_of_the_suite(name, arguments):
    module = importlib.import_module(f"benchmarks.{name}")
    options = make_parser(module, name).parse_args(arguments)
    assert options.debug is False


def test_the_list_and_an_unknown_name(capsys):
    main([])
    lines = capsys.readouterr().out.splitlines()[2:]
    assert [line.split()[0] for line in lines] == list(FOUND)
    with pytest.raises(SystemExit):
        main(["scal"])
    error = capsys.readouterr().err
    assert error == "error: unknown benchmark 'scal'; did you mean scale?\n"
    assert words("a,b") == ["a", "b"]


def test_no_other_file_is_a_command():
    for path in pathlib.Path("benchmarks").glob("*.py"):
        assert 'if __name__ == "__main__"' not in path.read_text("utf-8"), path
