"""The data of set fusion: features, or images and a recognizer."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh
from ml_collections import ConfigDict

from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.core.checks import check_field
from kprpe_jax.core.features import Features
from kprpe_jax.data import order
from kprpe_jax.data.faces import open_faces
from kprpe_jax.data.features import (
    StoredFeatures,
    check_origin,
    open_features,
    read_features,
)
from kprpe_jax.data.rows import read_all
from kprpe_jax.evaluation.feature_rows import about
from kprpe_jax.losses.set_fusion import class_means
from kprpe_jax.tasks import faces, networks
from kprpe_jax.tasks.task import TrainingRows
from kprpe_jax.weights.state_dict import load_state_dict

INPUTS = ("features", "pixels")
READ = ("embedding", "style", "image", "keypoints", "label")  # of a row, by the loss


class SetData(NamedTuple):
    """Everything about the data of a set fusion run.

    Attributes:
      shapes: of one image's features, float32: embeddings [D] and style [C, 2] or None.
      centers: f_GT, float32 [K, D].
      open_training: seed -> TrainingRows, 2 images_per_set rows of a person in turn.
      check_batch: of `Task`.
      features_of: (params, collections, rows, rng) -> Features.
      recognizer: None where features are read.
      origin: of `Task`: embed_dim, and what the features say of their recognizer.
    """

    shapes: Features
    centers: np.ndarray
    open_training: Callable[[int], TrainingRows]
    check_batch: Callable[[dict], None]
    features_of: Callable[..., Features]
    recognizer: Recognizer | None
    origin: dict[str, Any]


def open_data(config: ConfigDict, mesh: Mesh) -> SetData:
    """Open what the config's section `data` names.

    Reads data: dir, features (a data set that `embed` made: the class centers come from
    its clean photos, and with the input `features` the training rows from its degraded
    ones), in_memory, input, train_identities ((first, last), () = all), images_per_set,
    padded_sizes, batch_size; with the input `pixels` also name and train_split (images
    of the same people), and backbone, backbone_weights, backbone_style_maps,
    train_backbone; augmentation: preset, changes. loss.centers: `means`, or a file with
    one array [K, D], such as a classifier's weights.

    Raises: ValueError: see `set_fusion.build`.
    """
    data = config.data
    check_field("config.data.input", data.input, INPUTS)
    _check_sizes(config, mesh)
    clean = read_features(data.dir, data.features, "clean")
    centers = _centers(config, clean)
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape[1:], np.float32),
        clean.features._replace(patches=None),
    )
    origin = read_features_origin(config)
    if data.input == "features":
        source = open_features(data.dir, data.features, "degraded")
        labels = np.repeat(clean.labels, len(source) // len(clean.labels))
        source = read_all(source) if data.in_memory else source
        recognizer, features_of = None, _stored_features
    else:
        recognizer = _open_recognizer(config, shapes, origin)
        source = open_faces(
            data.dir,
            data.name,
            data.train_split,
            needs_keypoints=recognizer.uses_keypoints,
        )
        labels = source.labels()
        features_of = _computed_features(config, recognizer, mesh)
    first, last = tuple(data.train_identities) or (0, 2**31 - 1)
    labels = np.where((labels >= first) & (labels < last), labels, -1)
    return SetData(
        shapes=shapes,
        centers=centers,
        open_training=lambda seed: TrainingRows(
            source,
            order.balanced(
                labels, images_per_identity=2 * data.images_per_set, seed=seed
            ),
        ),
        check_batch=_batch_check(config, centers),
        features_of=features_of,
        recognizer=recognizer,
        origin=origin,
    )


def read_features_origin(config: ConfigDict) -> dict[str, Any]:
    """The `Task.origin` of a run: the width and recognizer of its features.

    Raises: ValueError: as `read_origin`.
    """
    data = config.data
    clean = open_features(data.dir, data.features, "clean")
    width = len(clean[0]["embedding"])
    return {"embed_dim": width, **networks.features_origin(config, data.features)}


def _check_sizes(config: ConfigDict, mesh: Mesh) -> None:
    data = config.data
    largest, padded = data.images_per_set, tuple(data.padded_sizes)
    if largest < 2 or sorted(set(padded)) != list(padded) or padded[-1:] != (largest,):
        raise ValueError(
            "config.data.padded_sizes must rise and end with config.data.images_per_"
            f"set, which is at least 2; got {padded} and {largest}; change one of them."
        )
    rows = 2 * largest * mesh.size * config.optimizer.accumulate_steps
    if data.batch_size % rows or config.optimizer.accumulate_steps > 1:
        raise ValueError(
            "config.data.batch_size counts images and must be a multiple of 2 x "
            f"images_per_set x devices = {rows}, without optimizer.accumulate_steps; "
            f"got {data.batch_size}; take a multiple."
        )


def _centers(config: ConfigDict, clean: StoredFeatures) -> np.ndarray:
    if config.loss.centers == "means":
        count = int(clean.labels.max()) + 1
        embeddings = clean.features.embeddings
        means = class_means(embeddings, clean.labels, num_classes=count)
        return np.asarray(means)
    arrays = list(load_state_dict(config.loss.centers).values())
    wanted = clean.features.embeddings.shape[1]
    if len(arrays) != 1 or arrays[0].ndim != 2 or arrays[0].shape[1] != wanted:
        raise ValueError(
            f"config.loss.centers: {config.loss.centers} must hold one array of class "
            f"centers [K, {wanted}]; got {[a.shape for a in arrays]}; save the "
            "classifier's weights alone, or use means."
        )
    return arrays[0]


def _open_recognizer(
    config: ConfigDict, shapes: Features, origin: dict[str, Any]
) -> Recognizer:
    recognizer = networks.load_backbone(config)
    check_origin(origin, about(recognizer), config.data.features)
    found = recognizer.shapes()
    sizes = [
        [None if x is None else x.shape for x in (f.embeddings, f.style)]
        for f in (shapes, jax.tree.map(lambda x: x.update(shape=x.shape[1:]), found))
    ]
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"config.backbone must give the features of {config.data.features}, "
            f"embeddings and style of {sizes[0]}; got {sizes[1]}; make the features "
            "with this backbone and these config.backbone_style_maps."
        )
    return recognizer


def _stored_features(params: Any, collections: Any, rows: dict, rng: Array) -> Features:
    del params, collections, rng
    return Features(rows["embedding"], style=rows.get("style"))


def _computed_features(
    config: ConfigDict, recognizer: Recognizer, mesh: Mesh
) -> Callable[..., Features]:
    augmented = faces.augmentation(config, mesh)

    def features_of(params, collections, rows, rng):
        images, keypoints = augmented(rows, rng)
        variables = networks.backbone_variables(params, collections)
        features = recognizer.replace(variables=variables).features(images, keypoints)
        features = Features(features.embeddings, style=features.style)
        if config.train_backbone:
            return features
        return jax.lax.stop_gradient(features)

    return features_of


def _batch_check(config: ConfigDict, centers: np.ndarray) -> Callable[[dict], None]:
    per_person = 2 * config.data.images_per_set
    known = np.abs(centers).sum(-1) > 0

    def check(batch: dict[str, np.ndarray]) -> None:
        labels, ids = batch["label"], batch["id"]
        if len(set(map(tuple, labels.reshape(-1, per_person).T))) > 1:
            raise ValueError(
                f"set_fusion: {per_person} rows in turn must show one person; the "
                f"batch of id {ids[0]} does not; change data.images_per_set or the data"
            )
        bad = ~known[np.clip(labels, 0, len(known) - 1)] | (labels >= len(known))
        if bad.any():
            raise ValueError(
                "set_fusion: everyone in the batch must have a class center; label "
                f"{labels[bad][0]} (id {ids[bad][0]}) has none; precompute the "
                "features of all training people"
            )
        if "embedding" in batch:
            names = [name for name in ("embedding", "style") if name in batch]
            fields = [batch[name].reshape(len(ids), -1) for name in names]
            finite = np.all([np.isfinite(x).all(-1) for x in fields], axis=0)
            if not finite.all():
                raise ValueError(
                    "set_fusion: features must be finite; those of the rows with id "
                    f"{ids[~finite][:5].tolist()} are not; precompute them again"
                )

    return check
