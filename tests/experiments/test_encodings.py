import json

import pytest

from kprpe_jax.configs import lfw
from kprpe_jax.tasks import networks
from tests.tasks import tiny
from tests.test_commands import RUN, start

POSITIONS = ("absolute", "kprpe_multihead")
MODULE = ("-m", "experiments", "encodings", "--config=configs/digits.py")


def study(output, *arguments):
    extra = {**RUN, "steps": 4, "evals.in_training": ("clean", "affine")}
    return start(
        *MODULE, f"--output={output}", f"--positions={','.join(POSITIONS)}",
        *tiny.arguments(**extra), *arguments,
    )  # fmt: skip


@pytest.mark.slow
def test_study_writes_a_report_and_trains_once(tmp_path):
    done = study(tmp_path)
    assert done.returncode == 0, done.stderr
    report = tmp_path / "report.md"
    assert done.stdout.endswith(f"report: {report}\n")
    assert done.stdout.count("step 4/4") == 2  # both were trained
    rows = [line for line in report.read_text().splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[0] for row in rows] == [
        "| encoding", "| absolute", "| kprpe_multihead",
    ]  # fmt: skip
    for position, row in zip(POSITIONS, rows[1:], strict=True):
        run = tmp_path / "runs" / f"{position}-0"
        assert json.loads((run / "config.json").read_text())["model"]["position"] == (
            position
        )
        results = json.loads((run / "study.json").read_text())
        assert results["step"] == 4  # the last checkpoint, not the best one
        assert f"| {100 * results['affine/accuracy']:.1f} |" in row
    pictures = {path.name for path in tmp_path.glob("*.png")}
    assert pictures == {
        "severity.png", "keypoint_noise.png", "affine_over_steps.png",
        "translated_over_steps.png", "offsets_kprpe_multihead.png",
    }  # fmt: skip

    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").rglob("*")}
    text = report.read_text()
    report.unlink()
    again = study(tmp_path)
    assert again.returncode == 0, again.stderr
    assert "step " not in again.stdout
    assert report.read_text() == text
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").rglob("*")} == before


@pytest.mark.slow
def test_faults_of_the_user_are_one_sentence(tmp_path):
    for arguments, message in (
        (["--config.model.dept=2"], "the nearest is model.depth"),
        (["--positions=none,absolut"], "unknown position 'absolut'"),
        (["--seeds=0,one"], "--seeds: must be whole numbers"),
        (["surplus"], "'surplus' belongs to no option"),
    ):
        done = study(tmp_path / "w", *arguments)
        assert done.returncode == 2, done.stderr
        assert message in done.stderr
        assert done.stderr.strip().count("\n") == 0
        assert not (tmp_path / "w").exists()


def test_a_study_stops_when_its_run_was_stopped(tmp_path, monkeypatch):
    """SIGTERM ends `loop.train` early; what it left must not pass for a result."""
    from experiments import whole_run
    from experiments.kprpe import encodings

    monkeypatch.setattr(whole_run.loop, "train", lambda config, workdir: {"step": 3})
    config = tiny.make_config("classification", steps=5)
    with pytest.raises(whole_run.StoppedError, match="stopped after step 3"):
        encodings.run_study(config, tmp_path, positions=["absolute"], seeds=[0])
    assert not list(tmp_path.rglob("study.json"))


@pytest.fixture
def made_up(monkeypatch):
    """Runs that train nothing and whose accuracy says how many steps they had."""
    from experiments import whole_run
    from experiments.kprpe import encodings
    from kprpe_jax.training.runs import save_config

    def train(config, workdir):
        save_config(config, workdir)
        (workdir / "metrics.jsonl").touch()
        return {"step": config.steps}

    def evaluate(config, workdir, checkpoint):
        return {"affine/accuracy": config.steps / 100}

    monkeypatch.setattr(whole_run.loop, "train", train)
    monkeypatch.setattr(encodings, "evaluate", evaluate)
    return encodings.run_study


@pytest.mark.parametrize(
    ("field", "value"),
    [("model.position_options.anchor_width", 0.0), ("evals.sweep.severities", (0.5,))],
)
def test_results_of_another_config_are_refused(tmp_path, made_up, field, value):
    one = dict(positions=["absolute"], seeds=[0])
    (run,) = made_up(tiny.make_config(steps=5), tmp_path, **one)
    assert run.results == {"affine/accuracy": 0.05}
    with pytest.raises(ValueError, match=f"holds a run whose {field} .*--output"):
        made_up(tiny.make_config(steps=5, **{field: value}), tmp_path, **one)


def test_what_eval_writes_is_no_result_of_the_study(tmp_path, made_up):
    one = dict(positions=["absolute"], seeds=[0])
    config = tiny.make_config(steps=5)
    (tmp_path / "runs" / "absolute-0").mkdir(parents=True)
    (tmp_path / "runs" / "absolute-0" / "eval.json").write_text("{}")
    for _ in range(2):  # measured, then read
        (run,) = made_up(config, tmp_path, **one)
        assert run.results == {"affine/accuracy": 0.05}
    assert not list(tmp_path.rglob("*.partial"))


def test_no_run_counts_twice(tmp_path, made_up):
    config = tiny.make_config(steps=5)
    with pytest.raises(ValueError, match="--seeds must name each only once; got 0,0"):
        made_up(config, tmp_path, positions=["absolute"], seeds=[0, 0])
    with pytest.raises(ValueError, match="--positions must name each only once; got r"):
        made_up(config, tmp_path, positions=["rpe", "rpe"], seeds=[0])
    assert not (tmp_path / "runs").exists()


def test_an_iresnet_stands_beside_the_encodings_on_faces():
    from experiments.kprpe import encodings

    config = lfw.get_config()
    chosen = encodings.choose_network(config, "ir18", seed=3, widths=(2, 4, 4, 8))
    assert (chosen.backbone, chosen.seed) == ("iresnet", 3)
    model = networks.make_network(chosen, tiny.one_device())
    assert (model.stage_sizes, model.widths) == ((2, 2, 2, 2), (2, 4, 4, 8))
    assert (model.image_size, model.output_dim) == ((112, 112), 128)
    assert not model.uses_keypoints
    assert config.backbone == "vit"  # the given config is as it was
    other = encodings.choose_network(config, "irpe", seed=0)
    assert (other.backbone, other.model.position) == ("vit", "irpe")


def test_an_iresnet_is_no_encoding_of_digits(tmp_path):
    from experiments.kprpe import encodings

    config = tiny.make_config("classification")
    with pytest.raises(ValueError, match="unknown position 'ir18'; use some of"):
        encodings.run_study(config, tmp_path, positions=["ir18"], seeds=[0])
