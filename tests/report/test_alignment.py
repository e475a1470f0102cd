"""Tables and pictures of alignment strength."""

import pytest

from kprpe_jax.report import alignment


def run_of(anme, rank_1):
    values = {metric: 0.5 for metric, _ in alignment.COLUMNS.values()}
    return {**values, "misaligned_1/anme": anme, "misaligned_1/rank_1": rank_1}


@pytest.fixture
def runs():
    """Two seeds of two variants."""
    return [
        {"weak": run_of(0.3, 0.2), "strong, input": run_of(0.1, 0.4)},
        {"weak": run_of(0.5, 0.3), "strong, input": run_of(0.1, 0.6)},
    ]


def test_a_row_is_mean_and_deviation_over_seeds(runs):
    lines = alignment.table(runs, ["weak", "strong, input"]).splitlines()
    titles = [cell.strip() for cell in lines[0].split("|")[1:-1]]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]
    weak, strong = (dict(zip(titles, row, strict=True)) for row in rows)
    assert weak["variant"] == "weak"
    assert weak["ANME"] == "0.400 ± 0.141"
    assert weak["rank-1, moved"] == "25.0 ± 7.1"
    assert strong["rank-1, moved"] == "50.0 ± 14.1"
    one = alignment.table(runs[:1], ["weak"])  # a single seed has no deviation
    assert "±" not in one


def test_the_report_has_a_table_and_a_plot_for_each_group(runs, tmp_path):
    groups = {"strength": ["weak"], "place": ["weak", "strong, input"]}
    text = alignment.write_report(runs, groups, tmp_path / "out")
    assert (tmp_path / "out" / "report.md").read_text() == text
    assert text.index("## strength") < text.index("## place")
    for group in groups:
        picture = (tmp_path / "out" / f"{group}.png").read_bytes()
        assert picture.startswith(b"\x89PNG")


def test_pictures_of_warps_and_templates(rng, tmp_path):
    points = rng.random((2, 5, 2))
    faces = rng.uniform(-1.2, 1.2, (2, 8, 8, 3))
    grid = rng.random((2, 3, 3, 2))
    path = tmp_path / "warps.png"
    alignment.plot_warps(faces, faces, grid, points, points, path)
    alignment.plot_template(points[0], points[1], rng.random(5), tmp_path / "t.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")
