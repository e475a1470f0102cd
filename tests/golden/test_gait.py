"""Gait metrics against stored outputs of the official code."""

import numpy as np
import pytest

from kprpe_jax.evaluation.gait import gait_metrics, part_distances
from tests.golden.golden import assert_close, case_params, load_case

pytestmark = pytest.mark.golden


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("case", case_params("gait3d_metrics"))
def test_metrics(case, metric):
    arrays = load_case(case).arrays
    given, stored = arrays["in"], arrays["out"]
    prefix = metric[:3]
    embeddings = given["embeddings"].swapaxes(1, 2)
    probe = given["is_probe"].astype(bool)
    distances = part_distances(embeddings[probe], embeddings[~probe], metric=metric)
    assert_close(distances, stored[f"{prefix}_dist"], 1e-5, "distances")
    got = gait_metrics(distances, given["labels"][probe], given["labels"][~probe])
    assert_close(got.ap, stored[f"{prefix}_AP"], 1e-5, "AP")
    assert_close(got.inp, stored[f"{prefix}_INP"], 1e-5, "INP")
    assert_close(100 * np.array(got[:5]), stored[f"{prefix}_summary"], 1e-5, "summary")
    assert got.dropped == probe.sum() - len(stored[f"{prefix}_AP"])
    assert got.rank_10 == pytest.approx(stored[f"{prefix}_cmc"][9], abs=1e-5)
