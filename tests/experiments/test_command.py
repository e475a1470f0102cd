"""Every experiment by its name: help, and mistakes as one sentence."""

import argparse
import importlib
import pathlib

import pytest

from experiments import options
from experiments.command import find_experiments, main
from kprpe_jax.commands.options import words

FOUND = find_experiments()


def test_the_list_has_a_line_per_experiment(capsys):
    main([])
    lines = capsys.readouterr().out.splitlines()[2:]
    assert [line.split()[0] for line in lines] == list(FOUND)
    assert len(FOUND) >= 15
    for name, (_, text) in FOUND.items():
        assert text.endswith((".", "?")), name


@pytest.mark.parametrize("name", FOUND)
def test_help_and_options(name, capsys):
    module = importlib.import_module(FOUND[name][0])
    assert callable(module.run)
    with pytest.raises(SystemExit) as stopped:
        main([name, "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert f"python -m experiments {name}" in text
    assert "_" not in "".join(w for w in text.split() if w.startswith("--"))


def test_the_index_names_every_experiment():
    index = pathlib.Path("experiments/README.md").read_text("utf-8")
    for name in FOUND:
        assert f"`{name}" in index, name


def test_an_unknown_name(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["reranke"])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error == "error: unknown experiment 'reranke'; did you mean reranking?\n"


def test_types_of_options():
    assert words("a,b") == ["a", "b"]
    assert options.whole_numbers("0,12") == [0, 12]
    assert options.numbers("0.5,1") == [0.5, 1]
    assert options.place("1,2") == (1, 2)
    for kind, text in (
        (options.whole_numbers, "0,one"),
        (options.numbers, "x"),
        (options.place, "1"),
    ):
        with pytest.raises(argparse.ArgumentTypeError, match=f"got {text}"):
            kind(text)
