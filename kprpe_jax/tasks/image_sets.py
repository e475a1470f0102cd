"""The data of set fusion: features, or images and a backbone."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh
from ml_collections import ConfigDict

from kprpe_jax.augmentation.recipe import make_recipe
from kprpe_jax.augmentation.sharded import augment_sharded
from kprpe_jax.core.features import Features
from kprpe_jax.data import order
from kprpe_jax.data.face_features import (
    FeatureRows,
    check_features,
    read_features,
)
from kprpe_jax.data.faces import open_faces
from kprpe_jax.data.store import open_split, read_all
from kprpe_jax.losses.set_fusion import class_means
from kprpe_jax.tasks.task import TrainingRows
from kprpe_jax.weights.extractor import Extractor, open_extractor
from kprpe_jax.weights.state_dict import load_state_dict

INPUTS = ("features", "pixels")
READ = ("embedding", "statistics", "image", "label")  # of a row, by the loss


class SetData(NamedTuple):
    """Everything about the data of a set fusion run.

    Attributes:
      sizes: D and C.
      centers: f_GT, float32 [K, D].
      open_training: seed -> TrainingRows, 2 images_per_set rows of a person in turn.
      check_batch: of `Task`.
      features_of: (params, collections, rows, rng) -> Features.
      extractor: the backbone; None where features are read.
    """

    sizes: tuple[int, int]
    centers: np.ndarray
    open_training: Callable[[int], TrainingRows]
    check_batch: Callable[[dict], None]
    features_of: Callable[..., Features]
    extractor: Extractor | None


def open_data(config: ConfigDict, mesh: Mesh) -> SetData:
    """Open what the config's sections `data` and `backbone` name.

    Reads data: dir, features (a data set of `data.precompute`: the class centers come
    from its clean photos, and with the input `features` the training rows from its
    degraded ones), in_memory, input, train_identities ((first, last), () = all),
    images_per_set, padded_sizes, batch_size; with the input `pixels` also name and
    train_split (images of the same people), and backbone: kind, weights, taps, trained;
    augmentation: preset, changes. loss.centers: `means`, or a file with one array
    [K, D], such as a classifier's weights.

    Raises: ValueError: see `set_fusion.build`.
    """
    data = config.data
    if data.input not in INPUTS:
        raise ValueError(
            f"config.data.input must be one of {', '.join(INPUTS)}; got {data.input!r}."
        )
    _check_sizes(config, mesh)
    clean = read_features(data.dir, data.features, "clean")
    centers = _centers(config, clean)
    sizes = clean.embeddings.shape[1], clean.statistics.shape[1]
    if data.input == "features":
        source = open_split(data.dir, data.features, "degraded")
        check_features(source, data.features)
        labels = np.repeat(clean.labels, len(source) // len(clean.labels))
        source = read_all(source) if data.in_memory else source
        extractor, features_of = None, _stored_features
    else:
        extractor = _open_backbone(config, sizes)
        source = open_faces(
            data.dir, data.name, data.train_split, image_size=extractor.image_size
        )
        labels, features_of = (
            source.labels(),
            _computed_features(config, extractor, mesh),
        )
    first, last = tuple(data.train_identities) or (0, 2**31 - 1)
    labels = np.where((labels >= first) & (labels < last), labels, -1)
    return SetData(
        sizes=sizes,
        centers=centers,
        open_training=lambda seed: TrainingRows(
            source,
            order.balanced(
                labels, images_per_identity=2 * data.images_per_set, seed=seed
            ),
        ),
        check_batch=_batch_check(config, centers),
        features_of=features_of,
        extractor=extractor,
    )


def backbone_variables(params: Any, collections: Any) -> dict[str, Any]:
    """The backbone's variables: collection `backbone`, and parameters if trained."""
    trained = {"params": params["backbone"]} if "backbone" in params else {}
    return {**collections["backbone"], **trained}


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


def _centers(config: ConfigDict, clean: FeatureRows) -> np.ndarray:
    if config.loss.centers == "means":
        count = int(clean.labels.max()) + 1
        means = class_means(clean.embeddings, clean.labels, num_classes=count)
        return np.asarray(means)
    arrays = list(load_state_dict(config.loss.centers).values())
    wanted = clean.embeddings.shape[1]
    if len(arrays) != 1 or arrays[0].ndim != 2 or arrays[0].shape[1] != wanted:
        raise ValueError(
            f"config.loss.centers: {config.loss.centers} must hold one array of class "
            f"centers [K, {wanted}]; got {[a.shape for a in arrays]}; save the "
            "classifier's weights alone, or use means."
        )
    return arrays[0]


def _open_backbone(config: ConfigDict, sizes: tuple[int, int]) -> Extractor:
    options = config.backbone
    extractor = open_extractor(options.kind, options.weights, taps=options.taps)
    if extractor.sizes() != sizes:
        raise ValueError(
            f"config.backbone must give the features of {config.data.features}, D and "
            f"C of {sizes}; got {extractor.sizes()}; precompute with this backbone."
        )
    return extractor


def _stored_features(params: Any, collections: Any, rows: dict, rng: Array) -> Features:
    del params, collections, rng
    return Features(rows["embedding"], style=rows["statistics"])


def _computed_features(
    config: ConfigDict, extractor: Extractor, mesh: Mesh
) -> Callable[..., Features]:
    options = config.augmentation
    recipe = make_recipe(options.preset, **options.changes.to_dict())

    def features_of(params, collections, rows, rng):
        images = rows["image"]
        nothing = jnp.zeros((len(images), 0, 2))
        images, _ = augment_sharded(rng, images, nothing, recipe, mesh=mesh)
        variables = backbone_variables(params, collections)
        features = extractor.extract(variables, images)
        features = Features(features.embeddings, style=features.statistics)
        if config.backbone.trained:
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
            fields = batch["embedding"], batch["statistics"].reshape(len(ids), -1)
            finite = np.logical_and(*(np.isfinite(x).all(-1) for x in fields))
            if not finite.all():
                raise ValueError(
                    "set_fusion: features must be finite; those of the rows with id "
                    f"{ids[~finite][:5].tolist()} are not; precompute them again"
                )

    return check
