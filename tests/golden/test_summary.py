import pathlib

import pytest

from kprpe_jax.matching.patch_weights import WEIGHTINGS
from tests.golden import golden
from tests.golden.golden import official_weighting, official_weightings


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


@pytest.mark.parametrize("text", ["constructor_kwargs", 'official_class"]'])
def test_cases_are_read_through_one_function(text):
    """No case passes or fails by the test that it stands in."""
    folder = pathlib.Path(__file__).parent
    found = [path.name for path in folder.glob("*.py") if text in path.read_text()]
    assert set(found) == {"golden.py", pathlib.Path(__file__).name}


def test_official_weightings_are_rules_of_ours():
    ours = {official_weighting(name) for name in official_weightings()}
    assert ours <= set(WEIGHTINGS)
