"""Pictures from the results that are in the repository."""

import json

import matplotlib.pyplot as plt
import pytest

from benchmarks import harness, plots


def test_every_picture_is_drawn(tmp_path):
    paths = plots.draw_all(tmp_path / "new")
    assert [path.name for path in paths] == [
        "performance_scale.png",
        "performance_class_memory.png",
        "performance_vit_position.png",
    ]
    assert all(plt.imread(path).std() > 0.05 for path in paths)


def test_bars_are_the_sums_of_the_results():
    row = {"sent_mib": {"a": 1.0, "b": 2.0}, "least_mib": {"c": 2.5}}
    _, axis = plt.subplots()
    plots.plot_traffic(axis, {"results": {"8x1x1": row}})
    assert [bar.get_height() for bar in axis.patches] == [3.0, 2.5]
    assert [x.get_text() for x in axis.get_xticklabels()] == ["8·1·1"]


def test_lines_of_memory_are_in_gibibytes():
    rows = [
        dict(chips=chips, identities=9, sample_rate=rate, arguments_mib=1024.0,
             temporary_mib=1024.0 * rate)
        for chips in (1, 8)
        for rate in (1.0, 0.1)
    ]  # fmt: skip
    _, axis = plt.subplots()
    plots.plot_class_memory(axis, {"results": {"rows": rows}})
    assert [list(line.get_ydata()) for line in axis.lines] == [[2.0, 2.0], [1.1, 1.1]]


def test_small_runs_are_not_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    lines = [
        {"results": {"rows": [{"n": n, "a_mib": 1.0} for n in range(rows)]}, "is": name}
        for name, rows in (("old", 3), ("new", 3), ("small", 1))
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "memory.jsonl").write_text(text)
    assert plots.fullest_line("memory")["is"] == "new"


def test_results_that_are_not_there():
    with pytest.raises(ValueError, match="must hold a result; got none; run the"):
        plots.fullest_line("unknown")
    with pytest.raises(ValueError, match="a result of {'preset': 'none'}; got none"):
        harness.recorded("vit_position", {"preset": "none"})
