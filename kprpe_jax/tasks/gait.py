"""Gait recognition by triplets and classes: SwinGait-2D and two baselines.

Source: KP-RPE, Sec. 5; Fan et al., Exploring deep models for practical gait
recognition, 2023.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh
from ml_collections import ConfigDict

from kprpe_jax import registry
from kprpe_jax.augmentation.recipe import make_recipe
from kprpe_jax.augmentation.sequences import move_sequences
from kprpe_jax.backbones.swin_gait import NUM_JOINTS
from kprpe_jax.core.checks import check_field
from kprpe_jax.data import order
from kprpe_jax.data.gait import Clips, GaitSplit, check_clips, clip_shapes, open_gait
from kprpe_jax.evaluation.evaluators import build_evaluators
from kprpe_jax.evaluation.evaluators.gait_search import EmbedSequences, GaitData
from kprpe_jax.losses.triplet import batch_all, batch_hard, part_cross_entropy
from kprpe_jax.tasks import networks
from kprpe_jax.tasks.task import Task, TrainingRows
from kprpe_jax.weights import import_weights

TRIPLETS = {"batch_all": batch_all, "batch_hard": batch_hard}


def build(config: ConfigDict, mesh: Mesh) -> Task:
    """Build the task; see `Task`.

    Reads backbone (of `registry.GAIT_NETWORKS`; a config without it is of `swin_gait`),
    model (fields of its class but num_classes), data (num_classes,
    sequences_per_identity, num_frames, skip_frames), augmentation (fields of
    `Spatial`), loss, evals.

    Raises: ValueError: as `make_model`; an unknown triplet loss; a batch that is no
      whole number of people; no such data set, or one of another size.
    """
    model = make_model(config)
    _check(config)
    examples = (
        jnp.zeros((mesh.size, config.data.num_frames, *model.image_size)),
        jnp.zeros((mesh.size, config.data.num_frames, NUM_JOINTS, 2)),
    )

    return Task(
        init=partial(networks.init, model, examples),
        loss=_make_loss(config, model),
        open_training=partial(_open_training, config),
        check_batch=partial(
            check_clips,
            num_classes=config.data.num_classes,
            size=model.image_size,
            needs_joints=model.uses_keypoints,
        ),
        evaluators=build_evaluators(
            config.evals,
            "gait",
            GaitData(
                make_embed(model),
                partial(open_split, config),
                uses_joints=model.uses_keypoints,
                batch_size=config.evals.batch_size,
            ),
        ),
        import_weights=partial(import_weights, model),
        row=clip_shapes(config.data.num_frames, model.image_size),
        places={"gait": networks.place},
    )


def make_model(config: ConfigDict) -> nn.Module:
    """The network that a config names, of its section `model`.

    Raises: ValueError: an unknown network, fields of another one (`network_fields`), or
      a window that spans time.
    """
    name = config.backbone if "backbone" in config else "swin_gait"
    check_field("config.backbone", name, registry.GAIT_NETWORKS)
    network = registry.resolve(registry.GAIT_NETWORKS[name])
    classes = {"num_classes": config.data.num_classes}
    given = {k: x for k, x in classes.items() if k in network.__dataclass_fields__}
    model = network(**networks.network_fields(network, config.model, **given))
    if model.spans_time:
        raise ValueError(
            "config.model.window must be (rows, columns) of tokens: the task trains "
            f"the 2-D network; got {model.window}"
        )
    return model


def model_section(model: nn.Module) -> dict[str, Any]:
    """Fields of a config's section `model` that make this network, but for its dtype.

    The keypoint encoding's options are left out: published networks have none.
    """
    others = ("num_classes", "dtype", "position_options", "parent", "name")
    names = [name for name in model.__dataclass_fields__ if name not in others]
    return {name: getattr(model, name) for name in names}


def make_embed(model: nn.Module) -> EmbedSequences:
    """The network as evaluators read it."""

    def embed(params: Any, collections: Any, sequences: dict[str, Array]) -> Array:
        return model.apply(
            {"params": params, **collections},
            sequences["silhouettes"],
            sequences["keypoints"],
            mask=sequences["frame_mask"],
            joint_mask=sequences["joint_mask"],
        ).embeddings

    return embed


def open_split(config: ConfigDict, split: str) -> GaitSplit:
    """A split of the config's data set, in the model's size."""
    data = config.data
    return open_gait(data.dir, data.name, split, size=tuple(config.model.image_size))


def _check(config: ConfigDict) -> None:
    per_person = config.data.sequences_per_identity
    check_field("config.loss.triplet", config.loss.triplet, TRIPLETS)
    if per_person < 2 or config.data.batch_size % per_person:
        raise ValueError(
            "config.data.batch_size must be a multiple of "
            "config.data.sequences_per_identity, which is at least 2; got "
            f"{config.data.batch_size} and {per_person}; change one of them"
        )


def _open_training(config: ConfigDict, seed: int) -> TrainingRows:
    """P people x K sequences a batch; each visit samples other frames."""
    data = config.data
    split = open_split(config, data.train_split)
    clips = Clips(split, num_frames=data.num_frames, skip=data.skip_frames, seed=seed)
    rows = order.balanced(
        split.labels, images_per_identity=data.sequences_per_identity, seed=seed
    )
    return TrainingRows(clips, order.numbered(rows, num_rows=len(clips)))


def _make_loss(config: ConfigDict, model: nn.Module) -> Callable[..., Any]:
    """Triplets of embeddings, and cross entropy of class cosines if any, per part."""
    options = config.loss
    triplet_loss = TRIPLETS.get(options.triplet)
    spatial = make_recipe("none", spatial=config.augmentation.to_dict()).spatial

    def loss(params, collections, batch, rng, *, train):
        move_rng, dropout_rng = jax.random.split(rng)
        silhouettes, keypoints, joint_mask = move_sequences(
            move_rng,
            batch["silhouettes"].astype(jnp.float32) / 255,
            batch["keypoints"],
            batch["joint_mask"],
            spatial,
        )
        output, collections = model.apply(
            {"params": params, **collections},
            silhouettes,
            keypoints,
            joint_mask=joint_mask,
            train=train,
            mutable=list(collections),
            rngs={"dropout": dropout_rng},
        )
        labels = batch["label"]
        triplet = triplet_loss(output.embeddings, labels, margin=options.margin)
        total = options.triplet_weight * triplet.loss
        metrics = {"triplet": triplet.loss, "active_triplets": triplet.active}
        if output.logits is not None:
            entropy = part_cross_entropy(output.logits, labels, scale=options.scale)
            right = output.logits.argmax(-1) == labels[:, None]
            total += entropy
            metrics |= {
                "cross_entropy": entropy,
                "accuracy": right.mean(dtype=jnp.float32),
            }
        return total, (collections, metrics)

    return loss
