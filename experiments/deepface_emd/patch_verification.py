"""Verify official pairs by patches: the earth mover's similarity mixed with the cosine.

Source: DeepFace-EMD, Eq. 5.1, on the protocol of LFW.

    python -m experiments patch_verification --dataset lfw_pairs \
        --model mobilefacenet:mobilefacenet.npz

The data set has a list of pairs (`kprpe-jax import --pairs`, or a verification .bin).
"""

import argparse
import json
import sys
from collections.abc import Sequence

import jax
import numpy as np

from experiments import options as shared
from experiments.deepface_emd.reranking_features import (
    PhotoFeatures,
    load_photo_recognizer,
    photo_features,
    select,
)
from experiments.deepface_emd.reranking_photos import SIDE
from experiments.deepface_emd.reranking_scores import WEIGHTINGS, pair_scores
from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.commands.options import add_data_dir, add_model
from kprpe_jax.core.input_spec import to_unit_range
from kprpe_jax.data.faces import FaceRows
from kprpe_jax.data.pair_sets import PairSet, open_pair_set
from kprpe_jax.evaluation.roc import roc_curve, tar_at_far
from kprpe_jax.evaluation.scores import pair_similarity
from kprpe_jax.evaluation.verification import fold_accuracy
from kprpe_jax.report.reranking import NAMES

ALPHAS = (0.0, 0.3, 0.5, 0.7, 1.0)
FAR = 1e-3


def embed_all(
    faces: FaceRows, recognizer: Recognizer, *, batch_size: int = 32
) -> tuple[PhotoFeatures, bool]:
    """Features of all rows, in memory, and whether all of them have keypoints."""

    @jax.jit
    def embed(images: jax.Array, keypoints: jax.Array) -> PhotoFeatures:
        return photo_features(recognizer, to_unit_range(images), keypoints)

    parts, known = [], True
    for start in range(0, len(faces), batch_size):
        at = np.minimum(np.arange(start, start + batch_size), len(faces) - 1)
        rows = faces.__getitems__(list(at))
        names = "image", "keypoints", "has_keypoints"
        images, points, there = (np.stack([row[n] for row in rows]) for n in names)
        known &= bool(there.all())
        parts.append(jax.device_get(embed(images, points)))
    return jax.tree.map(lambda *x: np.concatenate(x)[: len(faces)], *parts), known


def verify_by_patches(
    features: PhotoFeatures,
    pairs: PairSet,
    *,
    weightings: Sequence[str] = WEIGHTINGS,
    block: int = 100,
) -> dict[str, dict[str, dict[str, float]]]:
    """Verify all pairs by (1 - alpha) cosine + alpha earth mover's similarity.

    Args:
      features: of the pair set's images.
      pairs: the list.
      weightings: of the patches.
      block: pairs compared at once.
    Returns: weighting -> alpha -> accuracy and its deviation over the folds (thresholds
      half way between the scores of the other folds) and TAR at FAR 1e-3.
    Raises: ValueError: pairs of one kind only, fewer pairs than folds.
    """
    embeddings = features.faces.embeddings
    cosine = pair_similarity(embeddings[pairs.first], embeddings[pairs.second])
    count, parts = len(pairs.same), []
    for start in range(0, count, block):
        at = np.minimum(np.arange(start, start + block), count - 1)
        first = select(features, pairs.first[at])
        second = select(features, pairs.second[at][:, None])
        parts.append(np.asarray(pair_scores(first, second, tuple(weightings)))[:, 0])
    patches = np.concatenate(parts)[:count]

    def figures(scores: np.ndarray) -> dict[str, float]:
        # Distances in 0..2, as folds want what is smaller for the same person.
        folds = fold_accuracy(
            np.clip(1 - scores, 0, 4),
            pairs.same,
            num_folds=pairs.num_folds,
            thresholds="exact",
        )
        tar = tar_at_far(roc_curve(scores, pairs.same), [FAR]).tar[0]
        return {"accuracy": folds.mean, "std": folds.std, "tar": float(tar)}

    return {
        name: {
            f"{alpha:g}": figures(
                (1 - alpha) * np.asarray(cosine) + alpha * patches[:, i]
            )
            for alpha in ALPHAS
        }
        for i, name in enumerate(weightings)
    }


def table(results: dict[str, dict[str, dict[str, float]]]) -> str:
    """Accuracy / TAR at FAR 1e-3 in percent: a weighting per row, alpha per column."""
    heads = ["alpha", *(f"{alpha:g}" for alpha in ALPHAS)]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, by_alpha in results.items():
        cells = [
            f"{100 * x['accuracy']:.2f} / {100 * x['tar']:.1f}"
            for x in by_alpha.values()
        ]
        lines.append(f"| {' | '.join([NAMES[name], *cells])} |")
    return "\n".join(lines) + "\n"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--dataset", metavar="NAME", required=True, help="import with a list of pairs"
    )
    add_data_dir(parser)
    add_model(parser)
    shared.add_report(parser, "reports/patch_verification")


def run(options: argparse.Namespace) -> None:
    """Run the experiment."""
    pairs = open_pair_set(options.data_dir, options.dataset, image_size=(SIDE, SIDE))
    features, known = embed_all(pairs.faces, load_photo_recognizer(options.model))
    names = [name for name in WEIGHTINGS if known or name != "landmarks"]
    results = verify_by_patches(features, pairs, weightings=names)
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    text = table(results)
    (options.output / "table.md").write_text(text)
    sys.stdout.write(text)
