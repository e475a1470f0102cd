"""Numeric entry points, each with small arrays that it takes."""

import functools
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kprpe_jax.core.features import Features
from kprpe_jax.core.unit import direction, soft_unit, unit
from kprpe_jax.evaluation import identification, roc, scores, verification
from kprpe_jax.fusion import state as cluster_state
from kprpe_jax.fusion import weighted_state
from kprpe_jax.gallery.calibration import calibrate
from kprpe_jax.gallery.header import GalleryContents
from kprpe_jax.geometry import affine, point_fits, thin_plate_spline
from kprpe_jax.losses import adaface, margin
from kprpe_jax.matching.earth_movers import patch_similarity
from kprpe_jax.matching.sinkhorn import FAST, Solver, transport
from kprpe_jax.position.buckets import compute_buckets
from kprpe_jax.position.keypoint_bias import keypoint_bias
from kprpe_jax.position.lookup import num_buckets


class Entry(NamedTuple):
    """A function of arrays.

    Attributes:
      name: for messages.
      shapes: of its arrays.
      call: of them -> an array, or several.
      largest: of finite numbers, for which it promises finite results.
      compiled: it runs on the device, and compiles for each form of arrays.
    """

    name: str
    shapes: tuple[tuple[int, ...], ...]
    call: Callable[..., Any]
    largest: float = 1e15
    compiled: bool = True

    def __call__(self, *arrays: Any) -> Any:
        """Call it, once compiled for each form of arrays."""
        return _compiled(self.call)(*arrays) if self.compiled else self.call(*arrays)


_compiled = functools.cache(jax.jit)

SAME = np.array([1, 0, 1, 0, 0, 1], bool)
FOLDED = np.tile(SAME, 2)
GRID = SAME.reshape(2, 3)
SPLINE = thin_plate_spline.make_spline(thin_plate_spline.control_grid(2, 2))
MARGINS = {
    kind: margin.make_margin(kind, margin=0.4)
    for kind in ("arcface", "cosface", "adaface", "curricularface")
}
TARGET = jnp.eye(2, 3, dtype=bool)
MASK = jnp.array([[True, True, False], [True, False, False]])
BUCKETS = num_buckets(compute_buckets((8, 8), "product", 1.9))


def _logits(kind: str, cosine: Any) -> Any:
    return margin.margin_logits(cosine, TARGET, MARGINS[kind])


def _quality(embeddings: Any) -> Any:
    return adaface.image_quality(embeddings, adaface.initial_statistics())[0]


def _roc(similarity: Any) -> Any:
    curve = roc.roc_curve(similarity, SAME)
    rates = roc.tar_at_far(curve, [0.1, 0.5])
    rest = roc.equal_error_rate(curve), roc.area_under_curve(curve)
    return curve.far, curve.tar, rates.tar, rates.far, *rest


def _folds(distances: Any) -> Any:
    found = verification.fold_accuracy(distances, FOLDED, num_folds=2)
    exact = verification.fold_accuracy(
        distances, FOLDED, num_folds=2, thresholds="exact"
    )
    rate = verification.fold_tar_at_far(distances, FOLDED, far=0.5, num_folds=2)
    return found.accuracy, found.threshold, exact.accuracy, exact.threshold, *rate


def _open_set(similarity: Any) -> Any:
    same = np.array([[1, 0, 0], [0, 0, 0]], bool)
    outcome = identification.outcome_of_scores(similarity, same)
    found = identification.open_set(outcome, [0.5])
    ranks = identification.rank_accuracy(outcome, [1, 2])
    return found.tpir, found.fpir, found.threshold, ranks


def _calibration(embeddings: Any) -> Any:
    names = list("aabcd")
    images = np.ones(5, np.int64)
    found = calibrate(GalleryContents(names, names, images, Features(embeddings), {}))
    return 2.0 if found.threshold is None else found.threshold


def _stream(assignment: Any, features: Any, styles: Any) -> Any:
    empty = cluster_state.init_state(2, num_clusters=2, embed_dim=4, style_dim=2)
    state = cluster_state.update(empty, assignment, features, styles)
    return cluster_state.finalize(cluster_state.merge(state, empty))


def _weighted(values: Any, log_weights: Any) -> Any:
    empty = weighted_state.init_state(2, embed_dim=4)
    state = weighted_state.update(empty, values, log_weights, jnp.ones((2, 3), bool))
    return weighted_state.finalize(weighted_state.merge(state, empty))


def _masked(values: Any, log_weights: Any) -> Any:
    empty = weighted_state.init_state(2, embed_dim=4)
    state = weighted_state.update(empty, values, log_weights, MASK)
    return weighted_state.finalize(state)


def _transport(solver: Solver, cost: Any, a: Any, b: Any) -> Any:
    # Of weights that are all zero nothing is moved, whatever the costs.
    return transport(cost, jnp.abs(a) + 1e-3, jnp.abs(b) + 1e-3, solver)


def _bias(kernel: Any, bias: Any, keypoints: Any) -> Any:
    return keypoint_bias(kernel, bias, keypoints, (8, 8))


ENTRIES = [
    Entry("unit", ((2, 5),), unit),
    Entry("direction", ((2, 5),), direction, 3e38),
    Entry("soft_unit", ((2, 5),), soft_unit),
    Entry("pair_similarity", ((2, 5), (2, 5)), scores.pair_similarity, 3e38),
    Entry("pair_distance", ((2, 5), (2, 5)), scores.pair_distance, 3e38),
    *(
        Entry(kind, ((2, 3),), partial(_logits, kind), 1.0)
        for kind in MARGINS
    ),
    Entry("image_quality", ((3, 4),), _quality, 3e38),
    Entry("roc", ((6,),), _roc, 3e38, compiled=False),
    Entry("folds", ((12,),), _folds, 3e38, compiled=False),
    Entry(
        "best_accuracy", ((6,),), lambda x: verification.best_accuracy(x, SAME), 3e38,
        compiled=False,
    ),
    Entry("open_set", ((2, 3),), _open_set, 3e38, compiled=False),
    Entry(
        "alarm_threshold", ((5,),),
        lambda x: np.clip(identification.alarm_threshold(x, 0.3), -4e38, 4e38), 3e38,
        compiled=False,
    ),
    Entry("calibration", ((5, 4),), _calibration, compiled=False),
    Entry(
        "similarity_matrix", ((2, 5, 2), (2, 5, 2)), point_fits.similarity_matrix, 3e38,
        compiled=False,
    ),
    Entry("fit_similarity", ((2, 5, 2), (2, 5, 2)), point_fits.fit_similarity),
    Entry("fit_affine", ((2, 5, 2), (2, 5, 2)), point_fits.fit_affine),
    Entry("invert", ((2, 2, 3),), affine.invert),
    Entry(
        "warp_points", ((2, 4, 2), (2, 3, 2)),
        partial(thin_plate_spline.warp_points, SPLINE),
    ),
    Entry(
        "invert_warp", ((2, 4, 2), (2, 3, 2)),
        partial(thin_plate_spline.invert_warp, SPLINE), 1e6,
    ),
    Entry(
        "make_spline", ((4, 2),), lambda x: thin_plate_spline.make_spline(x).operator,
        3e38, compiled=False,
    ),
    Entry("stream", ((2, 2, 3), (2, 3, 4), (2, 3, 2)), _stream),
    Entry("weighted", ((2, 3, 4), (2, 3, 1)), _weighted),
    Entry("transport", ((2, 3, 4), (2, 3), (2, 4)), partial(_transport, Solver())),
    Entry("fast_transport", ((2, 3, 4), (2, 3), (2, 4)), partial(_transport, FAST)),
    Entry("patch_similarity", ((2, 3, 4), (2, 5, 4)), patch_similarity),
    Entry("keypoint_bias", ((4, 2, BUCKETS), (2, BUCKETS), (2, 2, 2)), _bias),
]  # fmt: skip
