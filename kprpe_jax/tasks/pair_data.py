"""The data of pair matching: patch maps, or images and what makes patches of them."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh
from ml_collections import ConfigDict

from kprpe_jax import registry
from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.core.checks import check_field
from kprpe_jax.core.input_spec import to_unit_range
from kprpe_jax.core.paths import as_path
from kprpe_jax.data.faces import open_faces
from kprpe_jax.data.features import (
    check_origin,
    open_features,
)
from kprpe_jax.data.pairs import PairRows, paired
from kprpe_jax.data.rows import read_all
from kprpe_jax.evaluation.feature_rows import about
from kprpe_jax.evaluation.pairs import sample_pairs
from kprpe_jax.tasks import faces, networks
from kprpe_jax.tasks.networks import BACKBONE
from kprpe_jax.tasks.task import TrainingRows

INPUTS = ("patches", "images")
# (name, split, identities) of the config -> rows, and their labels int [N]
OpenRows = Callable[[str, str, Sequence[int]], tuple[Sequence, np.ndarray]]
# (params, collections, batch of B pairs, rng, *, train) -> what the transformer reads
# [B, 2, ...] and the batch statistics of the network below, {} or {BACKBONE: tree}
Read = Callable[..., tuple[Array, dict[str, Any]]]


class PairData(NamedTuple):
    """Everything about the data of a pair matching run.

    Attributes:
      open_training: seed -> TrainingRows, a row is a pair.
      check_batch: of `Task`.
      read: see `Read`.
      backbone: None where there is none, or patches are read; without variables where
        it starts from random ones.
      origin: of `Task`: what the patches say of their recognizer.
    """

    open_training: Callable[[int], TrainingRows]
    check_batch: Callable[[dict], None]
    read: Read
    backbone: Recognizer | None
    origin: dict[str, Any]


def open_data(
    config: ConfigDict, mesh: Mesh, open_rows: OpenRows | None = None
) -> PairData:
    """Open what the config's section `data` names.

    Reads data: dir, name, input, in_memory, train_split, train_identities ((first,
    last), () = all; labels count from the first), num_classes, image_shape; model:
    num_patches, width, window_size; backbone, backbone_weights, train_backbone;
    augmentation: preset, changes.

    Args:
      config: of the run.
      open_rows: where rows come from; None: data sets on disk.
    Raises: ValueError: see `pair_matching.build`.
    """
    data = config.data
    check_field("config.data.input", data.input, INPUTS)
    on_disk = open_rows is None
    open_rows = partial(_open_rows, config) if on_disk else open_rows
    backbone, origin = None, {}

    training = data.name, data.train_split, data.train_identities
    opened = None  # to evaluate published weights, no images to train on need be there
    there = on_disk and as_path(os.path.join(data.dir, data.name)).is_dir()
    if there or not on_disk or data.input == "patches":
        opened = open_rows(*training)

    def open_training(seed: int) -> TrainingRows:
        source, labels = opened or open_rows(*training)
        return TrainingRows(PairRows(source), paired(labels, seed=seed))

    if data.input == "patches":
        _check_count(config, data.name, opened[0][0]["patches"].shape)
        read = _stored
        if on_disk:
            origin = networks.features_origin(config, data.name)
    elif config.model.window_size:
        read = _pixels(config, mesh)
    else:
        backbone = open_backbone(config)
        read = _computed(config, backbone, mesh)
        if not config.train_backbone:
            origin = about(backbone)
    return PairData(
        open_training=open_training,
        check_batch=partial(_check_batch, config),
        read=read,
        backbone=backbone,
        origin=origin,
    )


def open_pairs(
    config: ConfigDict,
    origin: dict[str, Any],
    open_rows: OpenRows | None = None,
    *,
    dataset: str,
    split: str,
    identities: tuple[int, ...],
    count: int,
) -> tuple[PairRows, np.ndarray]:
    """Sample the pairs of an evaluator.

    Args:
      config: of the run.
      origin: of the run: patches of another recognizer are refused.
      open_rows: as `open_data`.
      dataset: "" = config.data.name.
      split, identities: of the data set; (first, last), () = all.
      count: P.
    Returns: P pairs; bool [P], which of them are genuine.
    Raises: ValueError: as `sample_pairs`; patches of another recognizer.
    """
    name = dataset or config.data.name
    if config.data.input == "patches" and open_rows is None:
        check_origin(networks.features_origin(config, name), origin, name)
    open_rows = partial(_open_rows, config) if open_rows is None else open_rows
    tested, people = open_rows(name, split, identities)
    pairs = sample_pairs(people, count=count, seed=0)
    return PairRows(tested, pairs.first * len(tested) + pairs.second), pairs.same


def open_backbone(config: ConfigDict) -> Recognizer:
    """The network below the transformer, where images go through one.

    Raises: ValueError: neither weights nor training; images that it does not read;
      another number of patches than the model's; as `networks.load_backbone`.
    """
    size = tuple(config.data.image_shape[:2])
    if config.backbone_weights:
        backbone = networks.load_backbone(config)
    elif config.train_backbone:
        published = registry.network(config.backbone, "recognizer")
        spec = published.input_spec._replace(image_size=size)
        module = published.make(image_size=size)
        backbone = Recognizer({}, module, spec, config.backbone)
    else:
        raise ValueError(
            "config.backbone must have weights or be trained; got neither; name its "
            "file in config.backbone_weights or set config.train_backbone."
        )
    images = jax.ShapeDtypeStruct((1, *size, 3), np.float32)
    keypoints = jax.ShapeDtypeStruct((1, 5, 2), np.float32)
    patches = jax.eval_shape(
        lambda *x: _patches(
            backbone, _init_variables(backbone, jax.random.key(0)), *x, train=False
        )[0],
        images,
        keypoints,
    )
    _check_count(config, config.backbone, patches.shape[1:])
    return backbone


def example_input(config: ConfigDict) -> Array:
    """What the transformer reads of one image: zeros [1, ...]."""
    if config.data.input == "images" and config.model.window_size:
        return jnp.zeros((1, *config.data.image_shape))
    return jnp.zeros((1, config.model.num_patches, config.model.width))


def init_backbone(
    config: ConfigDict, backbone: Recognizer, rng: Array
) -> tuple[dict, dict]:
    """Its part of the parameters, {} where frozen, and of the collections."""
    variables = _init_variables(backbone, rng)
    return networks.split_backbone(variables, trained=config.train_backbone)


def _init_variables(backbone: Recognizer, rng: Array) -> dict[str, Any]:
    """The published variables, or random ones without the layers behind the patches."""
    if backbone.variables:
        return dict(backbone.variables)
    inputs = networks.example_inputs(backbone.input_spec, 1)
    return dict(backbone.module.init(rng, *inputs, method="feature_maps"))


def _patches(
    backbone: Recognizer,
    variables: dict[str, Any],
    images: Array,
    keypoints: Array,
    rng: Array | None = None,
    *,
    train: bool,
) -> tuple[Array, dict[str, Any]]:
    """Patches float32 [B, N, C], and the collections after batch statistics."""
    maps, changed = backbone.module.apply(
        variables,
        *backbone.input_spec.arguments(images, keypoints),
        train=train,
        method="feature_maps",
        mutable=["batch_stats"],
        rngs={} if rng is None else {"dropout": rng},
    )
    patches = maps[backbone.module.patch_map]
    flat = patches.reshape(len(patches), -1, patches.shape[-1])
    return flat.astype(jnp.float32), dict(changed)


def _open_rows(
    config: ConfigDict, name: str, split: str, identities: Sequence[int]
) -> tuple[Sequence, np.ndarray]:
    data = config.data
    if data.input == "images":
        source = open_faces(
            data.dir,
            name,
            split,
            image_size=tuple(data.image_shape[:2]),
            identities=tuple(identities) or None,
        )
    else:
        source = open_features(
            data.dir,
            name,
            split,
            identities=tuple(identities) or None,
            patches=True,
        )
    labels = source.labels()
    return (read_all(source) if data.in_memory else source), labels


def _check_count(config: ConfigDict, of: str, shape: tuple[int, int]) -> None:
    wanted = config.model.num_patches, config.model.width
    if shape != wanted:
        raise ValueError(
            f"config.model.num_patches and config.model.width must be those of {of}, "
            f"{shape[0]} and {shape[1]}; got {wanted[0]} and {wanted[1]}; change them."
        )


def _stored(params: Any, collections: Any, batch: dict, rng: Array, *, train: bool):
    del params, collections, rng, train
    return batch["patches"].astype(jnp.float32), {}


def _augmented(config: ConfigDict, mesh: Mesh) -> Callable[..., tuple[Array, Array]]:
    """(batch of pairs, rng, train) -> images float32 [2 B, H, W, 3], keypoints."""
    augmented = faces.augmentation(config, mesh)

    def images_of(batch: dict, rng: Array, train: bool) -> tuple[Array, Array]:
        images, keypoints = (
            batch[key].reshape(-1, *batch[key].shape[2:])
            for key in ("image", "keypoints")
        )
        if train:
            return augmented({"image": images, "keypoints": keypoints}, rng)
        return to_unit_range(images), keypoints

    return images_of


def _pixels(config: ConfigDict, mesh: Mesh) -> Read:
    images_of = _augmented(config, mesh)

    def read(params, collections, batch, rng, *, train):
        images, _ = images_of(batch, rng, train)
        return images.reshape(-1, 2, *images.shape[1:]), {}

    return read


def _computed(config: ConfigDict, backbone: Recognizer, mesh: Mesh) -> Read:
    images_of, trained = _augmented(config, mesh), config.train_backbone

    def read(params, collections, batch, rng, *, train):
        augment_rng, dropout_rng = jax.random.split(rng)
        variables = networks.backbone_variables(params, collections)
        patches, changed = _patches(
            backbone,
            variables,
            *images_of(batch, augment_rng, train),
            dropout_rng,
            train=train and trained,
        )
        changed = {BACKBONE: {**collections[BACKBONE], **changed}} if trained else {}
        return patches.reshape(-1, 2, *patches.shape[1:]), changed

    return read


def _check_batch(config: ConfigDict, batch: dict[str, np.ndarray]) -> None:
    labels = batch["label"]
    ids = np.stack([batch["id"], batch["second_id"]], -1)
    bad = (labels < 0) | (labels >= config.data.num_classes)
    if bad.any():
        raise ValueError(
            f"pair_matching: labels must be 0..{config.data.num_classes - 1}; got "
            f"{labels[bad][0]} (id {ids[bad][0]}); change data.num_classes or "
            "data.train_identities"
        )
    if "patches" in batch:
        finite = np.isfinite(batch["patches"]).all((-2, -1))
        if not finite.all():
            raise ValueError(
                "pair_matching: patches must be finite; those of the rows with id "
                f"{ids[~finite][:5].tolist()} are not; precompute them again"
            )
