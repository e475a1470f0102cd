"""The data of pair matching: patch maps, or images and what makes patches of them."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh
from ml_collections import ConfigDict

from kprpe_jax.data.face_patches import Patches, open_patches
from kprpe_jax.data.faces import open_faces
from kprpe_jax.data.pairs import PairRows, paired
from kprpe_jax.data.store import read_all
from kprpe_jax.evaluation.pairs import sample_pairs
from kprpe_jax.tasks import faces
from kprpe_jax.tasks.task import TrainingRows
from kprpe_jax.weights.patch_cnn import PatchCnn, open_patch_cnn

INPUTS = ("patches", "images")
CNN = "backbone"  # the collection, or the parameters, of the CNN
# (name, split, identities) of the config -> rows, and their labels int [N]
OpenRows = Callable[[str, str, Sequence[int]], tuple[Sequence, np.ndarray]]
# (params, collections, batch of B pairs, rng, *, train) -> what the transformer reads
# [B, 2, ...] and the CNN's batch statistics {} or {CNN: tree}
Read = Callable[..., tuple[Array, dict[str, Any]]]


class PairData(NamedTuple):
    """Everything about the data of a pair matching run.

    Attributes:
      open_training: seed -> TrainingRows, a row is a pair.
      tested: the P pairs of the evaluation.
      same: bool [P], which of these are genuine.
      check_batch: of `Task`.
      read: see `Read`.
      cnn: None where there is none, or patches are read.
    """

    open_training: Callable[[int], TrainingRows]
    tested: PairRows
    same: np.ndarray
    check_batch: Callable[[dict], None]
    read: Read
    cnn: PatchCnn | None


def open_data(
    config: ConfigDict, mesh: Mesh, open_rows: OpenRows | None = None
) -> PairData:
    """Open what the config's sections `data`, `backbone` and `evals` name.

    Reads data: dir, name, input, in_memory, train_split, train_identities ((first,
    last), () = all; labels count from the first), num_classes, image_shape; model:
    num_patches, width, window_size; backbone: kind, weights, trained; augmentation:
    preset, changes; evals: name ("" = data.name), split, identities, pairs.

    Args:
      config: of the run.
      open_rows: where rows come from; None: data sets on disk.
    Raises: ValueError: see `pair_matching.build`.
    """
    data, evals = config.data, config.evals
    if data.input not in INPUTS:
        raise ValueError(
            f"config.data.input must be one of {', '.join(INPUTS)}; got {data.input!r}."
        )
    open_rows = partial(_open_rows, config) if open_rows is None else open_rows
    cnn = None
    source, labels = open_rows(data.name, data.train_split, data.train_identities)
    if data.input == "patches":
        _check_count(config, data.name, source[0]["patches"].shape)
        read = _stored
    elif config.model.window_size:
        read = _pixels(config, mesh)
    else:
        cnn = open_cnn(config)
        read = _computed(config, cnn, mesh)
    tested, people = open_rows(evals.name or data.name, evals.split, evals.identities)
    pairs = sample_pairs(people, count=evals.pairs, seed=0)
    return PairData(
        open_training=lambda seed: TrainingRows(
            PairRows(source), paired(labels, seed=seed)
        ),
        tested=PairRows(tested, pairs.first * len(tested) + pairs.second),
        same=pairs.same,
        check_batch=partial(_check_batch, config),
        read=read,
        cnn=cnn,
    )


def open_cnn(config: ConfigDict) -> PatchCnn:
    """The CNN of the section `backbone`, where images go through one.

    Raises: ValueError: neither weights nor training; another number of patches than the
      model's; as `open_patch_cnn`.
    """
    options = config.backbone
    if not (options.weights or options.trained):
        raise ValueError(
            "config.backbone must have weights or be trained; got neither; name its "
            "weights or set backbone.trained."
        )
    cnn = open_patch_cnn(
        options.kind, options.weights, image_size=tuple(config.data.image_shape[:2])
    )
    _check_count(config, "the CNN", (cnn.grid[0] * cnn.grid[1], cnn.width))
    return cnn


def example_input(config: ConfigDict) -> Array:
    """What the transformer reads of one image: zeros [1, ...]."""
    if config.data.input == "images" and config.model.window_size:
        return jnp.zeros((1, *config.data.image_shape))
    return jnp.zeros((1, config.model.num_patches, config.model.width))


def init_cnn(config: ConfigDict, cnn: PatchCnn, rng: Array) -> tuple[dict, dict]:
    """The CNN's part of the parameters, {} where frozen, and of the collections."""
    variables = cnn.init(rng)
    if not config.backbone.trained:
        return {}, {CNN: variables}
    params = variables.pop("params")
    return {CNN: params}, {CNN: variables}


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
        source = Patches(open_patches(data.dir, name, split), tuple(identities))
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


def _augmented(config: ConfigDict, mesh: Mesh) -> Callable[..., Array]:
    """(batch of pairs, rng, train) -> images float32 [2 B, H, W, 3]."""
    augmented = faces.augmentation(config, mesh)

    def images_of(batch: dict, rng: Array, train: bool) -> Array:
        images, keypoints = (
            batch[key].reshape(-1, *batch[key].shape[2:])
            for key in ("image", "keypoints")
        )
        if train:
            return augmented({"image": images, "keypoints": keypoints}, rng)[0]
        return images.astype(jnp.float32) / 127.5 - 1

    return images_of


def _pixels(config: ConfigDict, mesh: Mesh) -> Read:
    images_of = _augmented(config, mesh)

    def read(params, collections, batch, rng, *, train):
        images = images_of(batch, rng, train)
        return images.reshape(-1, 2, *images.shape[1:]), {}

    return read


def _computed(config: ConfigDict, cnn: PatchCnn, mesh: Mesh) -> Read:
    images_of, trained = _augmented(config, mesh), config.backbone.trained

    def read(params, collections, batch, rng, *, train):
        augment_rng, dropout_rng = jax.random.split(rng)
        variables = dict(collections[CNN])
        if trained:
            variables["params"] = params[CNN]
        patches, changed = cnn.patches(
            variables,
            images_of(batch, augment_rng, train),
            dropout_rng,
            train=train and trained,
        )
        changed = {CNN: {**collections[CNN], **changed}} if trained else {}
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
