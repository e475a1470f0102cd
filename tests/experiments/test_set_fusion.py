"""The study of set fusion on sampled features, and its report."""

import json

import pytest

from experiments.cluster_aggregate import set_fusion as study
from experiments.cluster_aggregate.probes import Trial
from kprpe_jax.report import set_fusion as report
from tests.tasks import made_features


@pytest.mark.slow
def test_a_study_trains_searches_and_goes_on(tmp_path):
    config = made_features.make_config(
        **{"evals.in_training": ("probes",), "evals.probes.sizes": (8,)}
    )
    trial = Trial(config, "made", [1, 8])
    assert trial.describe() == "8 probes of 2 people, searched among 10 people."
    runs = []
    for method in ("average", "cluster_aggregate"):
        changed = config.copy_and_resolve_references()
        changed.fusion.method = method
        changed = changed.lock()
        runs.append(study.run_one(changed, trial, tmp_path, method, 0))
    average, caface = runs
    for run in runs:
        assert list(run.results) == list(study.METRICS)
        assert list(run.results["rank1"]) == ["1", "8"]
    assert set(caface.more["batches"]) == {"1", "4", "8"}
    assert len(caface.more["orders"]) == 5
    text = study.write_report(runs, trial, tmp_path)
    assert "| cluster_aggregate | " in text
    for name in ("rank1", "tar_1e-4_gain", "entropy"):
        assert (tmp_path / f"{name}.png").stat().st_size > 5000
    stored = json.loads((tmp_path / "results.json").read_text())
    assert stored[1]["results"] == caface.results
    again = study.run_one(changed, trial, tmp_path, "cluster_aggregate", 0)
    assert again == caface  # nothing is trained twice


def test_probes_of_another_trial_are_refused(tmp_path):
    config = made_features.make_config()
    config = config.copy_and_resolve_references().unlock()
    config.fusion.method = "average"
    few = Trial(config, "", [1, 8])
    first = study.run_one(config, few, tmp_path, "average", 0)
    assert study.run_one(config, few, tmp_path, "average", 0) == first
    more = Trial(config, "", [1, 4, 8])
    with pytest.raises(ValueError, match=r"must be of .*\[1, 4, 8\].*take another --o"):
        study.run_one(config, more, tmp_path, "average", 0)
    config.evals.probes.repeats += 1
    with pytest.raises(ValueError, match=r"a run whose evals\.probes\.repeats is"):
        study.run_one(config, few, tmp_path, "average", 0)


def test_tables_name_means_over_seeds():
    runs = [
        report.FusionRun("a", seed, {"rank1": {"1": share, "8": 1.0}})
        for seed, share in enumerate((0.5, 0.7))
    ]
    runs.append(report.FusionRun("b", 0, {"rank1": {"1": 0.25, "8": 0.5}}))
    assert report.size_table(runs, "rank1").splitlines() == [
        "| method | N = 1 | N = 8 | seeds |",
        "|---|---|---|---|",
        "| a | 60.0 ± 14.1 | 100.0 ± 0.0 | 2 |",
        "| b | 25.0 | 50.0 | 1 |",
    ]
