"""Benchmarks against the last time."""

import json

import pytest

from benchmarks import history
from benchmarks.harness import RESULTS

MACHINE = {"device": "cpu", "devices": 1, "processor": "P", "cores": 2, "jax": "1"}


def row(speed, *, machine=MACHINE, date="2026-01-01", **settings):
    results = {"ours": {"items_per_s": speed, "min_s": 1}, "gflop": 2.0}
    return {"date": date, "machine": machine, "settings": settings, "results": results}


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(history, "RESULTS", tmp_path)

    def write(*rows):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / "speed.jsonl").write_text(text)
        return history.compare("speed")

    return write


def test_ratio_to_the_newest_line_of_the_same_machine_and_settings(results):
    other = MACHINE | {"processor": "Q"}
    text = results(
        row(10, batch=8),
        row(20, batch=8, date="2026-02-02", load_average=3.0),
        row(1, batch=8, machine=other),
        row(1, batch=9),
        row(30, batch=8, machine=MACHINE | {"jax": "2"}, load_average=1.0),
    )
    head, *lines = text.splitlines()
    assert head == "speed, since 2026-02-02 (jax 1 -> 2): new / old"
    assert [line.split() for line in lines] == [
        ["ours", "items_per_s", "1.500", "30"],
        ["gflop", "1.000", "2"],
    ]


def test_nothing_to_compare(results):
    assert "the first with this machine" in results(row(1, batch=9), row(1, batch=8))
    with pytest.raises(ValueError, match="no results 'other'; choose some of speed"):
        history.compare("other")


def test_rows_of_tables_and_numbers_below_a_figure(results):
    def table(seconds, sent):
        rows = [
            {"devices": n, "wall_s": seconds * n, "sent": {"all-gather": sent}}
            for n in (1, 8)
        ]
        return row(1) | {"results": {"rows": rows, "gone_mib": 0, "text": "seconds"}}

    _, *lines = results(table(2.0, 10.0), table(3.0, 40.0)).splitlines()
    assert [line.split() for line in lines] == [
        ["devices", "1", "wall_s", "1.500", "3"],
        ["devices", "1", "sent", "all-gather", "4.000", "40"],
        ["devices", "8", "wall_s", "1.500", "24"],
        ["devices", "8", "sent", "all-gather", "4.000", "40"],
    ]


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.jsonl")), ids=lambda p: p.stem)
def test_every_result_has_figures_with_names_of_their_own(path):
    for line in path.read_text().splitlines():
        names = [name for name, _ in history.figures(json.loads(line)["results"])]
        assert names
        assert len(set(names)) == len(names)
