"""The threshold of a recognizer on LFW's pairs, for `kprpe_jax.gallery.thresholds`.

    python -m benchmarks thresholds --model mobilefacenet:mobilefacenet.npz \
        --archive lfw_df_aligned112.tar.gz --pairs pairs.txt

Prints the lowest cosine that at most one impostor pair in a thousand reaches. Faces are
embedded once, without their mirror images, with the template's keypoints: as `verify`
embeds aligned photos. dlib_resnet_v1 gets its chips from these photos, without the
margin that they lack.
"""

import argparse
import itertools
import sys
from collections.abc import Iterable

import numpy as np

from kprpe_jax.alignment.photos import AlignedFace, align_patches, cut_patch
from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.commands.options import add_model
from kprpe_jax.core.input_spec import to_unit_range
from kprpe_jax.data.importers.decode import decode_rgb
from kprpe_jax.data.importers.pair_list import read_lfw_pairs
from kprpe_jax.data.importers.tar_images import read_images
from kprpe_jax.evaluation.roc import roc_curve, tar_at_far
from kprpe_jax.evaluation.scores import pair_similarity
from kprpe_jax.evaluation.verification import FoldAccuracy, fold_accuracy
from kprpe_jax.gallery.photos import embed_faces
from kprpe_jax.gallery.thresholds import MeasuredThreshold
from kprpe_jax.geometry.template import face_template
from kprpe_jax.recognizers import load_recognizer

FAR = 1e-3


def embed_aligned(recognizer: Recognizer, images: Iterable[bytes]) -> np.ndarray:
    """Embeddings float32 [N, D] of encoded photos, aligned to the template.

    A recognizer of another template sees black where a photo ends.
    """
    keypoints = face_template((112, 112)) / np.float32(112)
    images, parts = iter(images), []
    while batch := list(itertools.islice(images, 1024)):
        photos, spec = map(decode_rgb, batch), recognizer.input_spec
        if spec.framing == "template":
            faces = [AlignedFace(to_unit_range(x), keypoints) for x in photos]
        else:
            faces = align_patches([cut_patch(x, keypoints, spec) for x in photos], spec)
        parts.append(embed_faces(recognizer, faces).embeddings)
    return np.concatenate(parts)


def measure(
    model: str, archive: str, pairs: str
) -> tuple[MeasuredThreshold, FoldAccuracy]:
    """Measure a recognizer: its threshold, and its accuracy over LFW's folds.

    Args:
      model: SPEC of `load_recognizer`.
      archive: aligned 112 x 112 photos as Name/Name_0001.jpg.
      pairs: LFW's official list.
    Raises: ValueError: as `load_recognizer`, `read_images` and `read_lfw_pairs`.
    """
    recognizer, listed = load_recognizer(model), read_lfw_pairs(pairs)
    names, rows = np.unique(listed.keys, return_inverse=True)
    embeddings = embed_aligned(recognizer, read_images(archive, names.tolist()))
    first, second = embeddings[rows.reshape(-1, 2).T]
    scores = np.asarray(pair_similarity(first, second), np.float64)
    point = tar_at_far(roc_curve(scores, listed.same), [FAR])
    threshold = float(np.floor(1e4 * point.threshold[0]) / 1e4)
    accuracy = fold_accuracy(
        2 - 2 * scores, listed.same, num_folds=listed.num_folds, thresholds="exact"
    )
    measured = MeasuredThreshold(
        threshold,
        float((scores[~listed.same] >= threshold).mean()),
        float((scores[listed.same] >= threshold).mean()),
        f"{len(listed.same):,} pairs of LFW",
        recognizer.fingerprint,
    )
    return measured, accuracy


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_model(parser)
    parser.add_argument("--archive", required=True, help="aligned 112 x 112 photos")
    parser.add_argument("--pairs", required=True, help="LFW's list of pairs")


def run(options: argparse.Namespace) -> None:
    """Measure and print."""
    measured, accuracy = measure(options.model, options.archive, options.pairs)
    sys.stdout.write(f"{measured}\naccuracy {accuracy.mean:.4f}\n")
