"""The study's variants fit the config, and a finished run is not run again."""

import json

import numpy as np
import pytest

from experiments.balanced_alignment import alignment
from kprpe_jax.alignment.aligned_backbone import METHODS
from kprpe_jax.configs import balanced_alignment
from kprpe_jax.training.runs import save_config


def test_every_variant_changes_fields_that_exist():
    for name, changes in alignment.VARIANTS.items():
        transformer = name in alignment.GROUPS["keypoints"]
        config = balanced_alignment.get_config(
            "small_kprpe" if transformer else "small"
        )
        config.lock()
        config.update_from_flattened_dict(changes)
        assert config.alignment.method in METHODS
        at_input = config.alignment.after == "input"
        assert at_input == (transformer or name.endswith("input"))
    assert alignment.VARIANTS[alignment.BALANCED] == {}  # the config is the paper's
    assert config.alignment.strength == 3.0


def test_every_group_has_variants_and_their_templates_come_first():
    for names in alignment.GROUPS.values():
        for place, name in enumerate(names):
            assert name in alignment.VARIANTS
            assert alignment._LEARNED_BY.get(name, name) in names[: place + 1]


def test_what_is_finished_is_read(tmp_path):
    name = alignment.BALANCED
    folder = tmp_path / "runs" / "tps_8_x_8-lambda_3-0"
    config = balanced_alignment.get_config("small")
    save_config(config, folder)
    (folder / "study.json").write_text(json.dumps({"aligned/anme": 0.25}))
    got = alignment.run_study(config, tmp_path, names=[name], seed=0)
    assert got == {name: {"aligned/anme": 0.25}}
    config.evals.misaligned_1.severity = 0.25  # of other measurements
    with pytest.raises(
        ValueError, match=r"evals\.misaligned_1\.severity is .*--output"
    ):
        alignment.run_study(config, tmp_path, names=[name], seed=0)


@pytest.mark.slow
def test_a_variant_trains_and_leaves_its_template(tmp_path):
    from tests.tasks.test_joint_alignment import make_config

    config = make_config(steps=2)
    names = [alignment.BALANCED, "learned template, then fixed"]
    got = alignment.run_study(config, tmp_path, names=names, seed=0)
    learned, fixed = (got[name] for name in names)
    np.testing.assert_allclose(fixed["template"], learned["template"], rtol=1e-6)
    np.testing.assert_allclose(fixed["first_template"], learned["template"], rtol=1e-6)
    assert not np.allclose(learned["first_template"], learned["template"], atol=1e-5)
    assert 0 <= learned["misaligned_1/rank_1"] <= 1
