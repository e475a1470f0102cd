from tests.golden import golden


def test_only_cases_whose_tests_all_passed_count(tmp_path, monkeypatch):
    monkeypatch.setattr(golden, "FOLDER", tmp_path)
    assert "no cases in" in golden.summary_line({})
    for name in ("vit_a", "vit_b", "emd_a", "emd_b", "roc_a"):
        (tmp_path / f"{name}.json").write_text("{}")
    assert "no case checked" in golden.summary_line({})
    outcomes = {"vit_a": {"passed"}, "vit_b": {"passed", "failed"}, "other": {"passed"}}
    assert golden.summary_line(outcomes) == (
        "golden: 1 of 5 cases checked; not covered: emd_* (2), roc_a, vit_b"
    )
    everything = dict.fromkeys(golden.case_names(), {"passed"})
    assert golden.summary_line(everything).endswith(
        "5 of 5 cases checked; not covered: none"
    )
