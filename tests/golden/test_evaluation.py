"""Metrics against stored outputs of the official evaluators.

Counts must be the same; scores and pooled templates differ by float32 round-off.
"""

import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.core.unit import unit
from kprpe_jax.evaluation.identification import (
    alarm_threshold,
    mate_recall_at_false_matches,
    open_set,
    outcome_of_scores,
    outcome_of_search,
    rank_accuracy,
)
from kprpe_jax.evaluation.protocols import distractor_search
from kprpe_jax.evaluation.roc import area_under_curve, roc_curve, tar_at_far
from kprpe_jax.evaluation.scores import pair_distance, pair_similarity
from kprpe_jax.evaluation.streamed_roc import stream_tar_at_far
from kprpe_jax.evaluation.templates import pool_templates, template_rows
from kprpe_jax.evaluation.verification import (
    best_accuracy,
    fold_accuracy,
    fold_roc,
    fold_tar_at_far,
)
from kprpe_jax.fusion.landmark_score import landmark_score, score_weighted
from kprpe_jax.matching.nearest import search
from tests.golden.golden import assert_close, case_params, load_case

pytestmark = pytest.mark.golden

BOUND = 1e-5


def arrays(case):
    loaded = load_case(case)
    return loaded.options, loaded.arrays["in"], loaded.arrays["out"]


def check_official_tar(scores, same, fars, tar, threshold):
    """TAR in percent and threshold as the official IJB evaluations choose them."""
    roc = roc_curve(scores, same, points="thinned")
    got = tar_at_far(roc, fars, choose="nearest")
    assert_close(100 * got.tar, tar, 1e-6, "TAR")
    at = np.where(np.isinf(got.threshold), 1e30, got.threshold)
    assert_close(at, np.where(np.isinf(threshold), 1e30, threshold), BOUND, "threshold")
    return got


@pytest.mark.parametrize("case", case_params("roc_"))
def test_roc(case):
    _, given, want = arrays(case)
    roc = roc_curve(given["score"], given["same"])
    assert_close(roc.far, want["fpr"], 1e-7, "FPR")
    assert_close(roc.tar, want["tpr"], 1e-7, "TPR")
    np.testing.assert_allclose(area_under_curve(roc), want["auc"], rtol=1e-6)
    read = tar_at_far(roc, given["far"])
    assert_close(read.tar, want["tar_at_far"], 1e-7, "TAR at FAR")
    streamed = stream_tar_at_far(
        lambda: [(given["score"], given["same"])], given["far"]
    )
    assert_close(streamed.tar, want["tar_at_far"], 1e-7, "streamed TAR at FAR")


@pytest.mark.parametrize("case", case_params("eval_verification"))
def test_verification(case):
    options, given, want = arrays(case)
    summed = given["features"] + given["features_flip"]
    assert_close(unit(summed), want["embeddings"], BOUND, "embeddings")
    distance, same = pair_distance(summed[::2], summed[1::2]), given["is_same"][::2]
    assert_close(distance, want["dist"], BOUND, "distances")
    folds = dict(num_folds=options["nrof_folds"])

    result = fold_accuracy(distance, same, **folds)
    assert_close(result.accuracy, want["accuracy_per_fold"], 1e-6, "accuracy")
    assert_close(result.threshold, want["best_threshold_per_fold"], 1e-6, "threshold")
    assert_close(100 * np.array([result.mean]), want["acc_percent"], 1e-6, "mean")
    assert_close(100 * np.array([result.std]), want["std_percent"], 1e-6, "deviation")

    tar, far = fold_roc(distance, same, np.arange(0, 4, 0.01), **folds)
    assert_close(tar, want["tpr"], 1e-6, "TAR")
    assert_close(far, want["fpr"], 1e-6, "FAR")
    names = ("val_at_far_1e-3", "val_std", "far_mean")
    for got, name in zip(fold_tar_at_far(distance, same, **folds), names, strict=True):
        assert_close(np.array([got]), want[name], 1e-6, name)


SETTINGS = {  # of the official IJB evaluator: weights, whether scores multiply
    "NormTrueDetTrue": ("norm", True),
    "NormTrueDetFalse": ("norm", False),
    "NormFalseDetTrue": ("equal", True),
}


def pool_ijb(embeddings, given, detector, setting):
    weights, uses_detector = SETTINGS[setting]
    return pool_templates(
        embeddings,
        given["templates"],
        media=given["medias"],
        weights=weights,
        quality=detector if uses_detector else None,
    )


def compare(templates, given):
    first, second = (template_rows(templates.ids, given[k]) for k in ("p1", "p2"))
    features = templates.unit_embeddings
    return np.asarray(pair_similarity(features[first], features[second]))


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("case", case_params("eval_ijb"))
def test_ijb(case, setting):
    options, given, want = arrays(case)
    summed = given["features"] + given["features_flip"]
    templates = pool_ijb(summed, given, given["faceness"], setting)
    np.testing.assert_array_equal(templates.ids, want["unique_templates"])
    feature = want[f"template_feature_{setting}"]
    assert_close(templates.unit_embeddings, feature, BOUND, "templates")
    scores = compare(templates, given)
    assert_close(scores, want[f"score_{setting}"], BOUND, "scores")
    check_official_tar(
        scores,
        given["label"],
        options["fpr_targets"],
        want[f"tpr_percent_{setting}"],
        want[f"threshold_{setting}"],
    )


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("case", case_params("cvlface_ijb"))
def test_cvlface_ijb(case, setting):
    options, given, want = arrays(case)
    embeddings, detector = given["embeddings"], given["detector_scores"]
    scores = compare(pool_ijb(embeddings, given, detector, setting), given)
    name = setting.lower().replace("det", "_det")
    tar, threshold = want[f"{name}_tpr"], want[f"{name}_threshold"]
    check_official_tar(scores, given["label"], options["fars"], tar, threshold)


@pytest.mark.parametrize("case", case_params("ijb_verification"))
def test_ijb_verification(case):
    _, given, want = arrays(case)
    rows = [template_rows(given["unique_templates"], given[k]) for k in ("p1", "p2")]
    scores = pair_similarity(*(given["template_feats"][r] for r in rows))
    assert_close(scores, want["score"], BOUND, "scores")
    got = check_official_tar(
        scores,
        given["label"],
        given["fars"],
        want["tar_at_far"],
        want["cvl_thresholds"],
    )
    assert_close(got.far, want["fpr_at_far"], 1e-6, "FAR of the points")
    roc = roc_curve(scores, given["label"], points="thinned")
    assert_close(roc.far, want["fpr"], 1e-6, "FAR")
    assert_close(roc.tar, want["tpr"], 1e-6, "TAR")


@pytest.mark.parametrize("case", case_params("ijb_identification"))
def test_ijb_identification(case):
    options, given, want = arrays(case)
    pooled = {}
    for side in ("query", "gallery"):
        ids, first = np.unique(given[f"{side}_templates"], return_index=True)
        subjects = given[f"{side}_ids"][first]
        chosen = np.isin(given["templates"], ids)
        templates = pool_templates(
            given["img_feats"][chosen],
            given["templates"][chosen],
            media=given["medias"][chosen],
        )
        features = templates.unit_embeddings
        assert_close(features, want[f"{side}_feats"], BOUND, side)
        np.testing.assert_array_equal(templates.ids, want[f"{side}_template_order"])
        np.testing.assert_array_equal(subjects, want[f"{side}_subjects"])
        pooled[side] = features, subjects
    (query, query_ids), (gallery, gallery_ids) = pooled["query"], pooled["gallery"]
    scores, same = query @ gallery.T, query_ids[:, None] == gallery_ids

    outcome = outcome_of_scores(scores, same)
    np.testing.assert_array_equal(outcome.mate_rank, want["rank"])
    np.testing.assert_array_equal(outcome.mate_rank == 0, want["is_correct"])
    assert_close(outcome.mate_score, want["gt_similarity"], BOUND, "mate scores")
    assert_close(rank_accuracy(outcome, options["ranks"]), want["topk"], 1e-6, "rank-k")
    found = search(query, query_ids, gallery, gallery_ids, k=len(gallery), block=7)
    searched = outcome_of_search(found, query_ids)
    np.testing.assert_array_equal(searched.mate_rank, want["rank"])

    recall, at = mate_recall_at_false_matches(scores, same, options["fpirs"])
    assert_close(recall, want["tpir_at_fpir"], 1e-6, "recall")
    assert_close(at, want["tpir_threshold"], BOUND, "threshold")


@pytest.mark.parametrize("case", case_params("eval_tinyface"))
def test_tinyface(case):
    options, given, want = arrays(case)
    features, ids = given["features"] + given["features_flip"], given["label_per_image"]
    probe, gallery, strangers = (
        given[f"{name}_index"] for name in ("probe", "gallery", "distractor")
    )
    rank = distractor_search(
        features[probe],
        ids[probe],
        features[gallery],
        ids[gallery],
        features[strangers],
        ranks=options["ranks"],
    )
    assert_close(100 * rank, want["rank_percent"], 1e-6, "rank-k")

    scores, same = given["openset_score"], given["openset_label"].astype(bool)
    outcome = outcome_of_scores(scores, same)
    # The wanted rates are not stored; the measured ones ask for the same counts.
    result = open_set(
        outcome, want["openset_far"], ranks=options["ranks"], rule="rounded"
    )
    assert_close(result.tpir, want["openset_dir"], 1e-6, "DIR")
    assert_close(result.fpir, want["openset_far"], 1e-6, "FAR")
    assert_close(result.threshold, want["openset_threshold"], 1e-6, "threshold")
    check_official_roc(scores, same, want["roc_far"], want)


def check_official_roc(scores, same, fars, want):
    """TAR and FAR over all entries of a score matrix, by the official rule."""
    at = np.array([alarm_threshold(scores[~same], far, rule="rounded") for far in fars])
    assert_close(at, want["roc_threshold"], 1e-6, "ROC threshold")
    tar, far = ((scores[kind] >= at[:, None]).mean(-1) for kind in (same, ~same))
    assert_close(tar, want["roc_tar"], 1e-6, "TAR")
    assert_close(far, want["roc_far"], 1e-6, "FAR")


@pytest.mark.parametrize("case", case_params("openset_"))
def test_open_set(case):
    options, given, want = arrays(case)
    scores, same = given["score_mat"], given["label_mat"].astype(bool)
    outcome, ranks = outcome_of_scores(scores, same), options["ranks"]
    result = open_set(outcome, options["open_fars"], ranks=ranks, rule="rounded")
    assert_close(result.tpir, want["open_dir"], 1e-6, "DIR")
    assert_close(result.fpir, want["open_far"], 1e-6, "FAR")
    assert_close(result.threshold, want["open_threshold"], 1e-6, "threshold")
    assert_close(rank_accuracy(outcome, ranks), want["closed_cmc"], 1e-6, "CMC")

    check_official_roc(scores, same, options["roc_fars"], want)
    accuracy, at = best_accuracy(scores.ravel(), same.ravel())
    assert_close(np.array(accuracy), want["accuracy"], 1e-6, "accuracy")
    assert_close(np.array(at), want["accuracy_threshold"], 1e-6, "its threshold")


@pytest.mark.parametrize("case", case_params("landmark_score_fusion"))
def test_landmark_score_fusion(case):
    options, given, want = arrays(case)
    score = landmark_score(
        given["landmarks"],
        want["reference_landmark"],
        reach=options["h"],
        distance="per_point",
    )
    face = given["face_score"][:, 0]
    weight = jnp.clip(score * face, 1e-6, 1)[:, None]
    assert_close(weight, want["weight"], BOUND, "weight")
    features = score_weighted(given["features"], score, face)
    assert_close(features, want["features"], BOUND, "features")
    assert_close(features.mean(0), want["fused_mean"], BOUND, "mean")
    pooled = pool_templates(
        given["features"], np.zeros(len(face)), weights="equal", quality=weight[:, 0]
    )
    assert_close(pooled.unit_embeddings[0], want["fused_unit"], BOUND, "unit mean")


@pytest.mark.parametrize("case", case_params("fusion_landmark_score"))
def test_fusion_landmark_score(case):
    _, given, want = arrays(case)
    canonical = want["reference_landmark"]
    score = landmark_score(given["landmarks"], canonical, distance="per_point")
    features = score_weighted(given["features"], score, given["face_score"][:, 0])
    assert_close(features, want["weighted_features"], BOUND, "features")


@pytest.mark.parametrize("case", case_params("template_pooling"))
def test_template_pooling(case):
    _, given, want = arrays(case)
    embeddings, templates = given["img_feats"], given["templates"]
    medium = pool_templates(embeddings, templates, media=given["medias"])
    np.testing.assert_array_equal(medium.ids, want["unique_templates"])
    pooled = {
        "media_pool": medium,
        # Three ways of the official helpers that come down to the same.
        "media_pool_fusion_helper": medium,
        "custom_none": medium,
        "force_avg_gallery": medium,
        "average": pool_templates(embeddings, templates),
        **{
            f"cvl_norm{int('NormTrue' in name)}_det{int(name.endswith('True'))}": (
                pool_ijb(embeddings, given, given["detector_scores"], name)
            )
            for name in SETTINGS
        },
    }
    for name, got in pooled.items():
        assert_close(got.unit_embeddings, want[name], BOUND, name)
