"""What face tasks share: rows, their check, augmentation, and verification."""

import os
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import tensorflow_datasets as tfds
from jax import Array
from jax.sharding import Mesh
from ml_collections import ConfigDict

from kprpe_jax.augmentation.recipe import make_recipe
from kprpe_jax.augmentation.sharded import augment_sharded
from kprpe_jax.augmentation.spatial import FACE_MIRROR
from kprpe_jax.data import order
from kprpe_jax.data.check import check_batch
from kprpe_jax.data.faces import FaceRows, check_keypoints, open_faces
from kprpe_jax.data.pair_sets import PairSet, open_pair_set, read_tables
from kprpe_jax.data.store import newest_version
from kprpe_jax.data.synthetic.landmarks import MIRROR
from kprpe_jax.data.template_sets import open_template_set
from kprpe_jax.evaluation import altered_queries, face_protocols, partly_aligned
from kprpe_jax.evaluation.conditions import Evaluator, merge_evaluators
from kprpe_jax.evaluation.embedding import Embed
from kprpe_jax.evaluation.misaligned import face_conditions, make_evaluators
from kprpe_jax.evaluation.pair_verification import pair_evaluator
from kprpe_jax.evaluation.pairs import Pairs, sample_pairs
from kprpe_jax.tasks import networks
from kprpe_jax.tasks.task import TrainingRows

# Number of keypoints -> the points of a mirrored face, for those that are known.
MIRRORS = {5: FACE_MIRROR, len(MIRROR): tuple(MIRROR.tolist())}


def open_training(config: ConfigDict, seed: int) -> TrainingRows:
    """The config's training people: shuffled or identity-balanced, some rows repeated.

    Reads data: dir, name, train_split, train_identities ((first, last), () = all),
    image_shape, images_per_identity (0 = shuffled), repeat_probability.
    """
    data = config.data
    source = open_people(config, data.train_split, data.train_identities)
    if data.images_per_identity:
        rows = order.balanced(
            source.labels(), images_per_identity=data.images_per_identity, seed=seed
        )
    else:
        rows = order.shuffled(len(source), seed=seed)
    if data.repeat_probability:
        rows = order.repeated(rows, probability=data.repeat_probability, seed=seed)
    return TrainingRows(source, rows)


def open_people(
    config: ConfigDict,
    split: str,
    identities: Sequence[int] = (),
    *,
    needs: bool | None = None,
) -> FaceRows:
    """The rows of a split of the config's data set.

    Reads data: dir, name, image_shape, points (field that the keypoints come from).

    Args:
      config: of the run.
      split: name.
      identities: (first, last), () = all people.
      needs: whether every row must have keypoints; None = as `needs_keypoints`.
    Raises: ValueError: as `open_faces`; a row that is read has no keypoints although
      the network reads them.
    """
    data = config.data
    return open_faces(
        data.dir,
        data.name,
        split,
        image_size=tuple(data.image_shape[:2]),
        identities=tuple(identities) or None,
        points=data.points,
        needs_keypoints=needs_keypoints(config) if needs is None else needs,
    )


def open_unseen(config: ConfigDict, *, needs: bool | None = None) -> FaceRows:
    """The people of the config's data set that evaluators test, none of training's.

    Reads evals: split, identities.

    Args:
      config: of the run.
      needs: of `open_people`.
    Raises: ValueError: as `open_people`, `check_unseen`.
    """
    check_unseen(config, config.data.name)
    evals = config.evals
    return open_people(config, evals.split, evals.identities, needs=needs)


def check_unseen(config: ConfigDict, tested: str) -> None:
    """Raise ValueError where evaluators would test people whom training sees.

    Reads data: name, train_split, train_identities; evals: split, identities.

    Args:
      config: of the run.
      tested: data set that the evaluators read.
    """
    data, evals = config.data, config.evals
    if (tested, evals.split) != (data.name, data.train_split):
        return
    everybody = (0, np.inf)
    trained, people = (
        tuple(identities) or everybody
        for identities in (data.train_identities, evals.identities)
    )
    if max(trained[0], people[0]) < min(trained[1], people[1]):
        raise ValueError(
            f"config.evals.identities must be people of {tested} whom training does "
            f"not see; got {tuple(evals.identities)}, and "
            f"config.data.train_identities {tuple(data.train_identities)} of the same "
            f"split {evals.split!r}, where () is everybody and (0, 0) nobody; change "
            "one of them."
        )


def needs_keypoints(config: ConfigDict) -> bool:
    """Whether the config's network reads the keypoints that come with an image."""
    return "backbone" in config and networks.make_network(config).uses_keypoints


def batch_check(config: ConfigDict) -> Callable[[dict[str, np.ndarray]], None]:
    """`check_batch` with the sizes of the config's data."""
    data = config.data
    return partial(
        check_batch,
        num_classes=data.num_classes,
        image_shape=tuple(data.image_shape),
        num_keypoints=data.num_keypoints,
    )


def augmentation(
    config: ConfigDict, mesh: Mesh
) -> Callable[[dict[str, Array], Array], tuple[Array, Array]]:
    """Build the augmentation that the config's section `augmentation` states.

    Reads augmentation: preset, and changes of its parts (`make_recipe`).

    Returns: (batch, rng) -> images float32 [B, H, W, 3] in [-1, 1], keypoints float32
      [B, 5, 2].
    Raises: ValueError: as `make_recipe`.
    """
    options = config.augmentation
    recipe = make_recipe(options.preset, **options.changes.to_dict())

    def augmented(batch: dict[str, Array], rng: Array) -> tuple[Array, Array]:
        arrays = batch["image"], batch["keypoints"]
        return augment_sharded(rng, *arrays, recipe, mesh=mesh)

    return augmented


def evaluators(embed: Embed, config: ConfigDict) -> dict[str, Evaluator]:
    """Verification aligned, distorted, and with errors of the keypoints.

    Reads evals: pairs_of (data set whose official pairs are compared; "" = pairs are
    drawn among the people whom training does not see), split, identities ((first,
    last), () = all), pairs (how many are drawn, 0 = none), mirror, batch_size,
    severities, alphas. Without pairs there is no evaluator. A network that reads
    keypoints is also given wrong ones (`face_conditions`).
    """
    evals = config.evals
    if evals.pairs_of:
        official = _open_pairs(config, evals.pairs_of)
        source, pairs = official.faces, _of_pair_set(official)
    elif evals.pairs:
        source = open_unseen(config)
        pairs = sample_pairs(source.labels(), count=evals.pairs, seed=0)
    else:
        return {}
    return make_evaluators(
        embed,
        source,
        pairs,
        face_conditions(
            evals.severities, evals.alphas, reads_keypoints=needs_keypoints(config)
        ),
        batch_size=evals.batch_size,
        mirror=evals.mirror,
    )


def pair_evaluators(embed: Embed, config: ConfigDict) -> dict[str, Evaluator]:
    """Verification by official lists, an evaluator per data set (`pair_evaluator`).

    Reads evals: pair_sets (names of data sets), mirror, batch_size; data: dir,
    image_shape.

    Raises: ValueError: as `open_pair_set`; a data set that is named twice.
    """
    evals = config.evals
    options = dict(batch_size=evals.batch_size, mirror=evals.mirror)
    return merge_evaluators(
        (name, pair_evaluator(embed, _open_pairs(config, name), **options))
        for name in evals.pair_sets
    )


def _open_pairs(config: ConfigDict, name: str, *, needs: bool = False) -> PairSet:
    return open_pair_set(
        config.data.dir,
        name,
        image_size=tuple(config.data.image_shape[:2]),
        needs_keypoints=needs or needs_keypoints(config),
    )


def _of_pair_set(pair_set: PairSet) -> Pairs:
    return Pairs(pair_set.first, pair_set.second, pair_set.same, pair_set.num_folds)


def altered_evaluators(embed: Embed, config: ConfigDict) -> dict[str, Evaluator]:
    """Identification of altered queries, an evaluator per kind (`altered_queries`).

    Reads evals: altered (kinds; () = none), split, identities, batch_size.
    """
    evals = config.evals
    if not evals.altered:
        return {}
    source = open_unseen(config)
    return altered_queries.make_evaluators(
        embed, source, evals.altered, batch_size=evals.batch_size
    )


def unaligned_evaluators(embed: Embed, config: ConfigDict) -> dict[str, Evaluator]:
    """`partly_aligned`: verification on every step from detection to alignment.

    Reads evals: unaligned (data set of photos of any size, "" = none), alignment_shares
    (the steps, 0 = detected .. 1 = aligned), mirror, batch_size; pairs, how many are
    drawn, where the data set has no official ones; where it is the training's own,
    split and identities, too; data: dir, image_shape.
    """
    if not config.evals.unaligned:
        return {}
    photos, pairs = _open_unaligned(config)
    return {
        "partly_aligned": partly_aligned.make_evaluator(
            embed,
            photos,
            pairs,
            config.evals.alignment_shares,
            batch_size=config.evals.batch_size,
            mirror=config.evals.mirror,
        )
    }


def _open_unaligned(config: ConfigDict) -> tuple[FaceRows, Pairs]:
    evals, data = config.evals, config.data
    folder = newest_version(data.dir, evals.unaligned)
    if "pair_same" in read_tables(folder):
        official = _open_pairs(config, evals.unaligned, needs=True)
        return official.faces, _of_pair_set(official)
    own = evals.unaligned == data.name
    if own:
        check_unseen(config, evals.unaligned)
    builder = tfds.builder_from_directory(folder)
    photos = open_faces(
        os.fspath(data.dir),
        evals.unaligned,
        evals.split if own else next(iter(builder.info.splits)),
        image_size=tuple(data.image_shape[:2]),
        identities=(tuple(evals.identities) or None) if own else None,
    )
    labels = photos.labels()
    sizes = np.unique(labels[labels >= 0], return_counts=True)[1]
    genuine = int((sizes * (sizes - 1)).sum()) // 2  # that can be told apart
    pairs = sample_pairs(labels, count=min(evals.pairs, 2 * genuine), seed=0)
    rows = np.unique(np.concatenate([pairs.first, pairs.second]))
    check_keypoints(evals.unaligned, photos.has_keypoints()[rows])
    return photos, pairs


def protocol_evaluators(embed: Embed, config: ConfigDict) -> dict[str, Evaluator]:
    """IJB-B, IJB-C, IJB-S, TinyFace, MegaFace (`face_protocols`).

    Reads evals: protocols (such as "ijb:ijbc"; () = none), pooling, align (bring photos
    of any size to the template first), mirror, batch_size; data: dir, image_shape.
    """
    evals, data = config.evals, config.data
    return face_protocols.protocol_evaluators(
        embed,
        evals.protocols,
        partial(
            open_template_set,
            data.dir,
            image_size=tuple(data.image_shape[:2]),
            align=evals.align,
            # Without them Eq. 17 gives every image the same weight.
            needs_keypoints=needs_keypoints(config)
            or evals.pooling == "landmark_score",
        ),
        batch_size=evals.batch_size,
        mirror=evals.mirror,
        pooling=evals.pooling,
    )
