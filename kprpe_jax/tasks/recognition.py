"""Recognition: a backbone trained with margin softmax over sharded class centers.

Source: KP-RPE, Sec. 4.1 and Supp. 2.1.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh, PartitionSpec
from ml_collections import ConfigDict

from kprpe_jax.core.unit import unit
from kprpe_jax.losses.adaface import image_quality, initial_statistics
from kprpe_jax.losses.class_centers import margin_softmax, padded_classes
from kprpe_jax.losses.class_sampling import SAMPLED, ClassSample, sample_classes
from kprpe_jax.losses.curricularface import initial_target_mean
from kprpe_jax.losses.margin import Margin, make_margin
from kprpe_jax.tasks import digits, networks
from kprpe_jax.tasks.task import Task

SHARDING_RULES = ((r"class_centers", PartitionSpec("class")),)
PLACES = {"recognizer": partial(networks.place, params="backbone")}
NORMS = "embedding_norms"  # the collection of AdaFace's running statistics
TARGETS = "target_cosines"  # that of CurricularFace's t


def build(config: ConfigDict, mesh: Mesh) -> Task:
    """Build the task on digits; see `Task`.

    Raises: ValueError: the model does not fit the canvas; unknown loss; no such data
      set.
    """
    model = networks.make_network(config, mesh)
    spec = networks.check_canvas(config, model)
    num_classes = config.data.num_classes

    def training_inputs(batch, rng):
        return spec.arguments(*digits.training_inputs(batch, rng, config))

    def predict(params, collections, images, keypoints):
        read = spec.arguments(images, keypoints)
        embeddings = embed(model, params, collections, *read)
        return unit(embeddings) @ unit(params["class_centers"][:num_classes]).T

    examples = networks.example_inputs(spec, mesh.size)
    return Task(
        init=partial(init, config, mesh, model, examples),
        loss=make_loss(config, mesh, model, training_inputs),
        open_training=partial(digits.open_training, config),
        check_batch=digits.batch_check(config),
        row=digits.row(config),
        evaluators=digits.evaluators(predict, config, spec.uses_keypoints),
        sharding_rules=SHARDING_RULES,
        sample_classes=make_sampler(config, mesh),
        places=PLACES,
        grid=model.grid,
    )


def num_centers(config: ConfigDict, mesh: Mesh) -> int:
    """Rows of the center matrix (`padded_classes`).

    The mesh tells what -1, "the rest", is; else the config's size counts, so that a
    run's checkpoint is read on any mesh.
    """
    shards = config.mesh["class"]
    shards = mesh.shape["class"] if shards == -1 else shards
    return padded_classes(config.data.num_classes, shards)


def make_sampler(
    config: ConfigDict, mesh: Mesh
) -> Callable[[dict[str, Array], Array], ClassSample] | None:
    """Build the `Task.sample_classes` of PartialFC; None where all centers take part.

    What is sampled depends on the mesh's class axis (`sample_classes`).

    Args:
      config: reads data.num_classes and loss.sample_rate.
      mesh: holds the class centers.
    """
    if config.loss.sample_rate == 1:
        return None
    options = dict(
        rows=num_centers(config, mesh),
        num_classes=config.data.num_classes,
        sample_rate=config.loss.sample_rate,
        mesh=mesh,
    )
    return lambda batch, rng: sample_classes(rng, batch["label"], **options)


def init(
    config: ConfigDict,
    mesh: Mesh,
    model: nn.Module,
    model_inputs: tuple[Array, ...],
    rng: Array,
) -> dict[str, Any]:
    """Variables of the backbone with the class centers, and statistics of the margin.

    Args:
      config: reads data.num_classes, model.output_dim, loss.margin_kind, mesh.class.
      mesh: of `num_centers`.
      model: the backbone.
      model_inputs: that it is initialized with.
      rng: key.
    """
    params_rng, dropout_rng, centers_rng = jax.random.split(rng, 3)
    rngs = {"params": params_rng, "dropout": dropout_rng}
    variables = model.init(rngs, *model_inputs, train=True)
    shape = num_centers(config, mesh), config.model.output_dim
    centers = 0.01 * jax.random.normal(centers_rng, shape)
    params = {"backbone": variables["params"], "class_centers": centers}
    margin = _margin(config.loss)
    if margin.uses_quality:
        variables = {**variables, NORMS: initial_statistics()}
    if margin.other_cosine is not None:
        variables = {**variables, TARGETS: {"mean": initial_target_mean()}}
    return {**variables, "params": params}


def make_loss(
    config: ConfigDict,
    mesh: Mesh,
    model: nn.Module,
    training_inputs: Callable[..., tuple[Array, ...]],
) -> Callable[..., Any]:
    """Build the `Task.loss` of margin softmax.

    With a sample in the collections (`make_sampler`) the centers are those of it.

    Args:
      config: as `make_class_loss`.
      mesh: holds the class centers.
      model: the backbone.
      training_inputs: (batch, rng) -> what the backbone reads, augmented.
    Raises: ValueError: as `make_margin`.
    """
    class_loss = make_class_loss(config, mesh)

    def loss(params, collections, batch, rng, *, train):
        augment_rng, dropout_rng = jax.random.split(rng)
        own = backbone_collections(collections)
        embeddings, own = model.apply(
            {"params": params["backbone"], **own},
            *training_inputs(batch, augment_rng),
            train=train,
            mutable=list(own),
            rngs={"dropout": dropout_rng},
        )
        value, others, metrics = class_loss(
            embeddings, params["class_centers"], batch["label"], collections
        )
        return value, ({**own, **others}, metrics)

    return loss


def make_class_loss(
    config: ConfigDict, mesh: Mesh
) -> Callable[..., tuple[Array, dict[str, Any], dict[str, Array]]]:
    """Build the margin softmax of embeddings, with what it keeps in collections.

    Args:
      config: reads data.num_classes and loss: margin_kind, margin, scale,
        margin_gradient, and for AdaFace concentration (h) and norm_momentum (t_alpha).
      mesh: holds the class centers.
    Returns: (embeddings, class centers, labels, collections) -> the loss; statistics
      of AdaFace or CurricularFace and the sample among the collections, the former
      renewed; metrics.
    Raises: ValueError: as `make_margin`; numbers of AdaFace out of their range.
    """
    num_classes, options = config.data.num_classes, config.loss
    margin = _margin(options)

    if margin.uses_quality:
        # Eq. 14: h spreads the norms over -1 .. 1; a share of each batch enters them.
        if not 0 < options.concentration < math.inf:
            raise ValueError(
                "config.loss.concentration must be a finite number above 0; got "
                f"{options.concentration}."
            )
        if not 0 < options.norm_momentum <= 1:
            raise ValueError(
                "config.loss.norm_momentum, the weight of a batch, must lie in (0, 1]; "
                f"got {options.norm_momentum}."
            )

    @jax.named_scope("class_centers")
    def class_loss(embeddings, centers, labels, collections):
        norms, sample = collections.get(NORMS), collections.get(SAMPLED)
        targets = collections.get(TARGETS)
        others, quality = {}, None
        if norms is not None:
            quality, norms = image_quality(
                embeddings,
                norms,
                concentration=options.concentration,
                t_alpha=options.norm_momentum,
            )
            others[NORMS] = norms
        result = margin_softmax(
            embeddings,
            centers,
            labels,
            margin=margin,
            num_classes=num_classes,
            mesh=mesh,
            quality=quality,
            target_mean=None if targets is None else targets["mean"],
            classes=None if sample is None else sample.classes,
        )
        if targets is not None:
            others[TARGETS] = {"mean": result.target_mean}
        metrics = {"accuracy": result.accuracy}
        if sample is not None:
            metrics["sampling_overflow"] = sample.overflow.astype(jnp.float32)
            others[SAMPLED] = sample
        return result.loss, others, metrics

    return class_loss


def _margin(options: ConfigDict) -> Margin:
    return make_margin(
        options.margin_kind,
        margin=options.margin,
        scale=options.scale,
        gradient=options.margin_gradient,
    )


def backbone_collections(collections: dict[str, Any]) -> dict[str, Any]:
    """The collections of the backbone, without those of `make_class_loss`."""
    own = NORMS, TARGETS, SAMPLED
    return {name: c for name, c in collections.items() if name not in own}


def embed(
    model: nn.Module, params: Any, collections: Any, *model_inputs: Array
) -> Array:
    """Embeddings float32 [B, D] of a state's backbone, not normalized."""
    own = backbone_collections(collections)
    return model.apply({"params": params["backbone"], **own}, *model_inputs)
