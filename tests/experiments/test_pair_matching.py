"""What the study counts, with networks whose scores are known."""

import jax
import numpy as np
import pytest

from experiments.command import main
from experiments.deepface_emd.reranking_photos import Photos
from experiments.face_vit import pair_data, pair_matching
from experiments.face_vit.pair_networks import Images, Scorer, cnn_scorer
from kprpe_jax.core.features import Features
from kprpe_jax.evaluation.pairs import sample_pairs
from kprpe_jax.geometry.template import ARCFACE_112
from kprpe_jax.matching.two_stage import first_stage
from kprpe_jax.report import pair_matching as report
from kprpe_jax.training.config import load_config
from kprpe_jax.training.runs import save_config
from tests.data.importers.sources import encode
from tests.experiments.stand_in import StandIn

PEOPLE, EACH, K = 5, 3, 4


@pytest.fixture
def trial(rng):
    """Photos whose patches say who it is; embeddings that say nothing."""
    labels = np.repeat(np.arange(PEOPLE), EACH).astype(np.int32)
    count = len(labels)
    patches = np.eye(PEOPLE, dtype=np.float32)[labels][:, None]
    embeddings = rng.normal(size=(count, 4)).astype(np.float32)
    points = np.zeros((count, 5, 2), np.float32)
    gallery = Images(
        np.zeros((count, 1), np.uint8), points, labels, embeddings, patches
    )
    queries = rng.permutation(count)[:6]
    pairs = sample_pairs(labels, count=20, seed=0)
    noise = 0.3 * rng.normal(size=(6, 4)).astype(np.float32)
    asked = gallery.select(queries)
    asked = {
        "plain": asked,
        "mask": asked._replace(embeddings=asked.embeddings + noise),
    }
    ranked = {
        kind: first_stage(
            Features(images.embeddings, None), Features(embeddings, None), ranks=count
        )
        for kind, images in asked.items()
    }
    firsts = dict.fromkeys(asked, gallery.select(pairs.first))
    return pair_data.Test(gallery, pairs, queries, firsts, asked, ranked)


def same_person():
    score = jax.jit(lambda first, second: (first * second).sum((1, 2)))
    return Scorer(lambda images: images.patches, score)


def test_a_network_that_knows_everybody(trial, tmp_path):
    results = pair_matching.examine(same_person, trial, tmp_path / "s.npz", k=K)
    labels = trial.gallery.labels
    for kind in ("plain", "mask"):
        assert results[kind]["accuracy"] == 100
        for own in ("removed", "kept") if kind == "mask" else ("removed",):
            right = []
            for query, ranks in zip(
                trial.queries, trial.ranked[kind].rows, strict=True
            ):
                rows = [r for r in ranks if own == "kept" or r != query][:K]
                right.append((labels[rows] == labels[query]).any())
            assert results[kind][own]["1"]["p_at_1"] == pytest.approx(
                100 * np.mean(right)
            )
    assert "kept" not in results["plain"]
    # By the first stage alone a photo finds itself first, where it is there.
    assert results["mask"]["kept"]["0"] != results["mask"]["removed"]["0"]
    # Scores that are there are read, and the network is not made.
    again = pair_matching.examine(None, trial, tmp_path / "s.npz", k=K)
    assert again == results


def test_c_changes_nothing_about_its_own_ranking(trial, tmp_path):
    results = pair_matching.examine(cnn_scorer, trial, tmp_path / "s.npz", k=K)
    for figures in (results["mask"]["kept"], results["plain"]["removed"]):
        for alpha in ("0.3", "0.7", "1"):
            assert figures[alpha] == figures["0"]


def test_report(trial, tmp_path):
    found = pair_matching.examine(same_person, trial, tmp_path / "s.npz", k=K)
    worse = {k: {**v, "accuracy": v["accuracy"] - 2} for k, v in found.items()}
    results = {
        "trained": [5, 15], "tested": [5, 15], "kinds": ["plain", "mask"],
        "num_pairs": 20, "num_queries": 6, "k": K,
        "networks": {"C": [found], "H2L": [found, worse]},
    }  # fmt: skip
    text = report.write(results, tmp_path)
    assert "| H2L | 99.0 ± 1.4 | 99.0 ± 1.4 |" in text
    figures = found["mask"]["kept"]["1"]
    cell = f"{figures['p_at_1']:.1f} ± 0.0 / {figures['map_at_r']:.1f} ± 0.0"
    assert f"| H2L, α = 1 | {cell} |" in text
    assert "| C, α" not in text
    assert (tmp_path / "tables.md").read_text() == text


@pytest.mark.slow
def test_altered_photos_depend_on_their_numbers(rng):
    pixels = rng.integers(60, 200, (3, 112, 112, 3), np.uint8)
    points = ARCFACE_112 / 112
    photos = Photos(
        [encode(image, "PNG") for image in pixels],
        np.tile(points, (3, 1, 1)).astype(np.float32),
        np.arange(3),
        np.arange(3),
    )
    assert pair_data.alter(photos, "plain") is photos
    masked = pair_data.alter(photos, "mask")
    alone = pair_data.alter(photos.select(np.array([2])), "mask")
    assert alone.encoded[0] == masked.encoded[2]
    assert len(set(masked.encoded)) == 3
    with pytest.raises(ValueError, match="unknown queries 'hat'; use some of"):
        pair_data.prepare(photos, None, None, kinds=["hat"], num_pairs=2, num_queries=2)


def test_scores_of_another_run_are_refused(tmp_path, monkeypatch, trial):
    """Those in the cache are of the config that the run's folder keeps."""
    images, config = trial.gallery, "configs/pair_matching.py"
    monkeypatch.setattr(pair_matching, "prepare", lambda *_, **__: (images, trial))
    monkeypatch.setattr(pair_matching, "examine", lambda *_, **__: {})
    monkeypatch.setattr(pair_matching.report, "write", lambda *_: "")
    photos = Photos([], images.keypoints, images.labels, images.labels)
    trained = pair_matching.network_config(load_config(f"{config}:h1"), images, 0)
    save_config(trained, tmp_path / "runs" / "h1_0")

    def study(*overrides, network="seen", seeds=(0,)):
        pair_matching.run_study(
            photos, StandIn(network, None), tmp_path, config=config, k=K,
            overrides=overrides, networks=["h1"], seeds=seeds, num_pairs=2,
            num_queries=2,
        )  # fmt: skip

    study()
    with pytest.raises(ValueError, match="holds a run whose steps is"):
        study("steps=3")
    with pytest.raises(ValueError, match="must hold features of this recognizer and t"):
        study(network="other")
    with pytest.raises(ValueError, match="--seeds must name each only once; got 0,0"):
        study(seeds=(0, 0))


def test_one_source_of_photos(capsys):
    with pytest.raises(SystemExit):
        main(["pair_matching", "--model=m", "--dataset=d", "--archive=a", "--points=p"])
    assert "--archive and --points, or --dataset; got both" in capsys.readouterr().err
