"""The whole LFW protocol with real weights, by the study."""

import jax
import numpy as np
import pytest

from experiments import lfw
from kprpe_jax.core.mesh import make_mesh
from kprpe_jax.data.importers.dataset import write_dataset
from kprpe_jax.data.importers.verification_bin import open_verification_bin
from kprpe_jax.data.pair_sets import open_pair_set
from kprpe_jax.training.config import load_config
from kprpe_jax.training.evaluate import evaluate
from tests.data.importers.sources import SHARED, needs_shared


@pytest.mark.slow
@needs_shared
def test_known_figures_from_the_archive(tmp_path):
    """What is known of these weights and this archive, to 0.1 points."""
    archive = SHARED / "lfw" / "lfw_df_aligned112.tar.gz"
    lfw.import_lfw(archive, SHARED / "lfw" / "pairs.txt", str(tmp_path))
    pairs = open_pair_set(tmp_path, "lfw_pairs", image_size=(112, 112))
    assert (len(pairs.faces), len(pairs.same)) == (7701, 6000)
    weights = SHARED / "weights" / "mobilefacenet.npz"
    one = make_mesh({"data": 1, "fsdp": 1, "class": 1}, jax.devices()[:1])
    results, _ = lfw.run_study(pairs, weights, batch_size=64, mesh=one)
    result = results["concatenate"]
    assert 100 * result.centered.mean == pytest.approx(98.97, abs=0.1)
    assert 100 * result.accuracy.mean == pytest.approx(98.82, abs=0.1)
    assert np.isfinite(result.tar.threshold).all()
    assert "| accuracy |" in lfw.write_report(results, 1.0, tmp_path / "report")
    assert (tmp_path / "report" / "roc.png").stat().st_size > 10_000


@pytest.mark.slow
@needs_shared
def test_a_bin_file_from_the_pickle_to_the_number(tmp_path):
    """Ten real pairs of one kind: no rates, but their mean cosine."""
    source = open_verification_bin(SHARED / "insightface" / "small_lfw.bin")
    write_dataset(source, name="small_lfw", data_dir=tmp_path, origin={})
    config = load_config("configs/lfw_mobilefacenet.py")
    config.data.dir, config.evals.pair_sets = str(tmp_path), ("small_lfw",)
    results = evaluate(
        config,
        tmp_path / "run",
        evaluators=["small_lfw"],
        weights=str(SHARED / "weights" / "mobilefacenet.npz"),
    )
    del results["small_lfw/images_per_second"]
    assert results == {
        "small_lfw/genuine_similarity": pytest.approx(0.674, abs=5e-4),
        "small_lfw/pairs": 10,
        "small_lfw/images": 20,
    }
