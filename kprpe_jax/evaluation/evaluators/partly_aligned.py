"""Type `partly_aligned`: at every step between a detector's crop and the aligned face.

Source: KP-RPE, Fig. 5.
"""

import numpy as np
from jax.sharding import Mesh

from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.data.faces import FaceRows, check_keypoints, open_faces
from kprpe_jax.data.store import open_builder, read_tables
from kprpe_jax.evaluation.embedding import embed
from kprpe_jax.evaluation.evaluators import Evaluator
from kprpe_jax.evaluation.evaluators.faces import FaceData
from kprpe_jax.evaluation.evaluators.verification import of_pairs
from kprpe_jax.evaluation.pairs import Pairs, sample_pairs
from kprpe_jax.evaluation.scores import pair_distance
from kprpe_jax.evaluation.verification import fold_accuracy


def build(
    data: FaceData,
    *,
    dataset: str,
    split: str = "train",
    identities: tuple = (),
    pairs: int = 3000,
    shares: tuple = (0.0, 0.25, 0.5, 0.75, 1.0),
    mirror: str = "sum",
) -> Evaluator:
    """Build the evaluator.

    Args:
      data: of the run.
      dataset: photos of any size, all that are read with keypoints.
      split, identities: of the data set, where it is that of training; else its only
        split and everybody.
      pairs: at most so many are sampled, where the data set has no official ones.
      shares: of the way to the alignment, in [0, 1]: 0 detected, 1 aligned.
      mirror: of `embed`.
    Returns: function (recognizer, mesh) -> {share: accuracy over the folds of the
      pairs}, and the number of pairs.
    Raises: ValueError: a share outside of [0, 1]; no such data set, or photos without
      keypoints; identities of training.
    """
    for share in shares:
        if not 0 <= share <= 1:
            raise ValueError(
                f"shares must lie in [0, 1], from detected to aligned; got {share}."
            )
    photos, listed = of_pairs(*_open_photos(data, dataset, split, identities, pairs))

    def evaluate(recognizer: Recognizer, mesh: Mesh) -> dict[str, float]:
        results: dict[str, float] = {}
        for share in shares:
            x = embed(
                recognizer,
                photos.cut(share),
                batch_size=data.batch_size,
                mesh=mesh,
                mirror=mirror,
            ).embeddings
            distance = np.asarray(pair_distance(x[listed.first], x[listed.second]))
            folds = fold_accuracy(distance, listed.same, num_folds=listed.num_folds)
            results[f"{share:g}"] = folds.mean
        return {**results, "pairs": len(listed.same)}

    return evaluate


def _open_photos(
    data: FaceData, name: str, split: str, identities: tuple, count: int
) -> tuple[FaceRows, Pairs]:
    """Photos with their official pairs, or sampled ones."""
    if "pair_same" in read_tables(data.dir, name):
        return data.open_official_pairs(name, needs_keypoints=True)
    own = name == data.name
    if own:
        data.check_held_out(name, split, identities)
    splits = open_builder(data.dir, name).info.splits
    photos = open_faces(
        data.dir,
        name,
        split if own else next(iter(splits)),
        image_size=data.image_size,
        identities=(tuple(identities) or None) if own else None,
    )
    labels = photos.labels()
    sizes = np.unique(labels[labels >= 0], return_counts=True)[1]
    genuine = int((sizes * (sizes - 1)).sum()) // 2  # that can be told apart
    pairs = sample_pairs(labels, count=min(count, 2 * genuine), seed=0)
    rows = np.unique(np.concatenate([pairs.first, pairs.second]))
    check_keypoints(name, photos.has_keypoints()[rows])
    return photos, pairs
