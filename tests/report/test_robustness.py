import matplotlib.image
import numpy as np
import pytest
from ml_collections import ConfigDict

from kprpe_jax.configs.base import verification_evaluators
from kprpe_jax.report import robustness
from kprpe_jax.report.robustness import Run


def run(position, seed, clean, affine):
    results = {
        "step": 20,
        "clean/accuracy": clean,
        "clean/count": 360,
        "affine/accuracy": affine,
        "affine_box/accuracy": affine / 2,
        "affine_swapped/accuracy": affine,
        "sweep/0": clean,
        "sweep/1.5": affine / 2,
        "sweep/count": 360,
        "noise/uniform_0": affine,
        "noise/uniform_0.1": affine / 2,
        "noise/scale_0": affine,
        "noise/count": 360,
    }
    curves = [
        {"step": step, "loss": 1.0} for step in (5, 10, 15, 20)
    ] + [
        {"step": step, "clean/accuracy": clean * step / 20, "affine/accuracy": affine}
        for step in (10, 20)
    ]  # fmt: skip
    return Run(position, seed, results, curves)


RUNS = [
    run("rpe", 0, 0.90, 0.70),
    run("absolute", 0, 0.80, 0.50),
    run("rpe", 1, 0.94, 0.76),
    run("rpe", 2, 0.98, 0.70),
]


def test_table_has_mean_and_sample_deviation():
    # rpe: 90, 94, 98 -> 94 +- 4; 70, 76, 70 -> 72 +- sqrt(24 / 2); halves of these.
    assert robustness.table(RUNS) == (
        "| encoding | translated | affine | affine, upright box "
        "| affine, swapped keypoints | seeds |\n"
        "|---|---|---|---|---|---|\n"
        "| rpe | 94.0 ± 4.0 | 72.0 ± 3.5 | 36.0 ± 1.7 | 72.0 ± 3.5 | 3 |\n"
        "| absolute | 80.0 | 50.0 | 25.0 | 50.0 | 1 |\n"
    )


def test_mean_std():
    assert robustness.mean_std([0.5]) == "50.0"
    assert robustness.mean_std([0.5, 0.6]) == "55.0 ± 7.1"  # 5 * sqrt(2)


def test_by_position_keeps_the_order_of_appearance():
    groups = robustness.by_position(RUNS)
    assert list(groups) == ["rpe", "absolute"]
    assert [run.seed for run in groups["rpe"]] == [0, 1, 2]


@pytest.fixture
def drawn(monkeypatch):
    """Catch the axes of each picture: {label: (x, y)} of its lines, and the bands."""
    caught = []
    finish = robustness._finish

    def watch(figure, axes, label, path):
        lines = {line.get_label(): line.get_xydata().T for line in axes.get_lines()}
        caught.append((lines, len(axes.collections), label))
        finish(figure, axes, label, path)

    monkeypatch.setattr(robustness, "_finish", watch)
    return caught


def assert_picture(path):
    pixels = matplotlib.image.imread(path)
    assert 400 < pixels.shape[0] < 2000
    assert 600 < pixels.shape[1] < 3000
    assert len(np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0)) > 10


def test_plot_conditions(tmp_path, drawn):
    sweep, noise = map(robustness.numbered, ("sweep/", "noise/uniform_"))
    robustness.plot_conditions(RUNS, sweep, "severity", tmp_path / "a.png")
    assert_picture(tmp_path / "a.png")
    lines, bands, label = drawn[0]
    np.testing.assert_allclose(lines["rpe"], [[0, 1.5], [94, 36]])
    np.testing.assert_allclose(lines["absolute"], [[0, 1.5], [80, 25]])
    assert (bands, label) == (1, "severity")  # a band where there are several seeds
    robustness.plot_conditions(RUNS, noise, "error", tmp_path / "b.png")
    np.testing.assert_allclose(drawn[1][0]["absolute"], [[0, 0.1], [50, 25]])


def test_plot_curves(tmp_path, drawn):
    unfinished = RUNS[0]._replace(curves=RUNS[0].curves[:-1])
    runs = [unfinished, *RUNS[1:]]
    robustness.plot_curves(runs, "clean/accuracy", tmp_path / "a.png")
    assert_picture(tmp_path / "a.png")
    lines, _, _ = drawn[0]
    np.testing.assert_allclose(lines["absolute"], [[10, 20], [40, 80]])
    np.testing.assert_allclose(lines["rpe"], [[10], [47]])  # steps that all seeds have


def without_keypoints(run):
    names = ("affine_box", "affine_swapped", "noise")
    kept = {k: v for k, v in run.results.items() if k.split("/")[0] not in names}
    return run._replace(results=kept)


def test_conditions_that_an_encoding_does_not_have_stay_empty(tmp_path, drawn):
    runs = [RUNS[0], without_keypoints(RUNS[1])]
    assert robustness.table(runs).endswith("| absolute | 80.0 | 50.0 |  |  | 1 |\n")
    noise = robustness.numbered("noise/uniform_")
    robustness.plot_conditions(runs, noise, "error", tmp_path / "a.png")
    assert set(drawn[0][0]) == {"rpe"}
    robustness.write_report([without_keypoints(run) for run in runs], tmp_path / "b")
    assert len(list((tmp_path / "b").glob("*.png"))) == 3
    assert "noise" not in (tmp_path / "b" / "report.md").read_text()


@pytest.mark.slow
def test_write_report(tmp_path):
    output = tmp_path / "new" / "folder"
    said = robustness.write_report(RUNS, output)
    assert said == robustness.table(RUNS) + f"report: {output / 'report.md'}\n"
    text = (output / "report.md").read_text()
    assert robustness.table(RUNS) in text
    pictures = {path.name for path in output.glob("*.png")}
    assert len(pictures) == 4
    for name in pictures:
        assert f"]({name})" in text
        assert_picture(output / name)


def test_report_of_faces(tmp_path, drawn):
    results = {
        "aligned/accuracy": 0.9, "aligned/std": 0.1, "misaligned_1/accuracy": 0.6,
        "misaligned_0_5/accuracy": 0.8, "misaligned_1/pairs": 300,
    }  # fmt: skip
    curves = [{"step": step, "aligned/accuracy": step / 20} for step in (10, 20)]
    runs = [Run("rpe", seed, results, curves) for seed in (0, 1)]
    evals = ConfigDict(verification_evaluators((1.0, 0.5)))
    said = robustness.write_report(runs, tmp_path, robustness.faces(evals))
    assert said.startswith(
        "| encoding | aligned | misaligned, 0.5 | misaligned, 1 | seeds |\n"
        "|---|---|---|---|---|\n| rpe | 90.0 ± 0.0 | 80.0 ± 0.0 | 60.0 ± 0.0 | 2 |\n"
    )
    np.testing.assert_allclose(drawn[0][0]["rpe"], [[0, 0.5, 1], [90, 80, 60]])
    assert {path.name for path in tmp_path.glob("*.png")} == {
        "severity.png", "aligned_over_steps.png",
    }  # fmt: skip
