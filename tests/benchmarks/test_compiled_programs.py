"""What is kept of compiled programs, compared, and tried next; nothing is compiled."""

import json

import pytest

from benchmarks import compiled_programs, compiled_table
from benchmarks.compiled_programs import PROGRAMS, REFERENCES, compare, kept
from kprpe_jax.commands import compile as compile_command
from kprpe_jax.commands.main import make_parser

FACTS = {
    "fits": True,
    "state_bytes": 100,
    "sent_bytes": {"all-reduce": 10.0},
    "between_slices": [
        {"collective": "all-reduce", "bytes": 3.0, "source": "a.py:1"},
        {"collective": "all-reduce", "bytes": 4.0, "source": "b.py:1"},
    ],
    "compile_seconds": 7.0,
    "evaluation": {"fits": True, "compile_seconds": 1.0},
}


def test_what_is_kept_and_compared():
    reference = kept(FACTS)
    assert reference["between_slices"] == {"all-reduce": 7.0}
    assert "compile_seconds" not in reference | reference["evaluation"]
    assert compare(reference, kept(FACTS)) == []
    near = {**reference, "state_bytes": 100.1}
    assert compare(reference, near) == []
    sent = {"all-reduce": 20.0, "all-gather": 5.0}
    far = compare(reference, {**reference, "sent_bytes": sent, "fits": False})
    assert [line.split()[-1] for line in far] == ["0.000", "new", "2.000"]


@pytest.mark.parametrize("name", PROGRAMS)
def test_references_and_their_options(name):
    parser = make_parser(compile_command, "compile")
    plain = [x for x in PROGRAMS[name] if not x.startswith("--config.")]
    assert parser.parse_args(plain).config
    path = REFERENCES / f"{name}.json"
    if path.is_file():
        assert json.loads(path.read_text())["fits"]


@pytest.mark.parametrize(
    ("fits", "next_size"),
    [
        ({}, 64),
        ({64: True}, 128),
        ({64: False}, 32),
        ({64: False, 32: True}, None),
        ({64: True, 128: False}, None),
        ({2: False, 1: False}, None),
    ],
)
def test_what_is_compiled_next(fits, next_size):
    assert compiled_table.next_size(fits, 64) == next_size


def test_the_table_says_what_was_compiled_and_no_more(tmp_path, monkeypatch):
    rows = [
        compiled_table.Row(name, "digits", "v5e:2x2", (4, 1, 1), 64)
        for name in ("a", "b")
    ]
    rows[1] = rows[1]._replace(config="gait")
    facts = {**FACTS, "temporary_bytes": 2**31, "chip_memory_bytes": 2**34}
    lines = [
        {"settings": rows[0].settings(64), "results": {**facts, "bytes_accessed": 1e9}},
        {"settings": rows[0].settings(128), "results": {"fits": False}},
    ]
    monkeypatch.setattr(compiled_table, "RESULTS", tmp_path)
    monkeypatch.setattr(compiled_table, "ROWS", rows)
    monkeypatch.setattr(compiled_table, "recorded", lambda name: lines)
    (tmp_path / "compiled_table.jsonl").write_text("")
    (line,) = compiled_table.table()[2:]
    assert line.startswith("| a | v5e:2x2 | 4 × 1 × 1 | 64 | 0.00 + 2.00 of 16 | 1.0 |")
    del lines[1]
    assert "| 64 or more |" in compiled_table.table()[2]


def test_an_unknown_program():
    parser = make_parser(compiled_programs, "compiled_programs")
    with pytest.raises(ValueError, match="--only: must name some of digits, "):
        compiled_programs.run(parser.parse_args(["--only=degits"]))
