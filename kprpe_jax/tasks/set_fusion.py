"""Set fusion: two sets of images of each person, fused alone, in a stream, and at once.

Source: Cluster and Aggregate, Sec. 3.2 and Supp. A.
"""

import dataclasses
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
from kprpe_jax.core.features import Features
from kprpe_jax.evaluation.evaluators import build_evaluators
from kprpe_jax.fusion.cluster_aggregate import VARIANTS, ClusterAggregate, ImageSets
from kprpe_jax.fusion.scored import ScoredFusion
from kprpe_jax.fusion.weighted import WeightedFusion
from kprpe_jax.losses.set_fusion import permutation_loss, template_loss
from kprpe_jax.tasks import growing_probes, image_sets, networks
from kprpe_jax.tasks.task import Task

SETS = 2  # of each person


def build(config: ConfigDict, mesh: Mesh) -> Task:
    """Build the task; see `Task`.

    Raises: ValueError: unknown method or input; sizes that do not fit; no such data
      set, people, weights or class centers.
    """
    data = image_sets.open_data(config, mesh)
    model = make_model(config.fusion, embed_dim=data.origin["embed_dim"])
    centers = jnp.asarray(data.centers)

    def init(rng: Array) -> dict[str, Any]:
        features = jax.tree.map(lambda x: jnp.zeros((1, 2, *x.shape)), data.shapes)
        sets = ImageSets(features, jnp.ones((1, 2), bool))
        variables = dict(model.init(rng, sets))
        params = {"fusion": variables.pop("params", {})}
        if data.recognizer is None:
            return {**variables, "params": params}
        trained, backbone = networks.split_backbone(
            data.recognizer.variables, trained=config.train_backbone
        )
        return {**variables, **backbone, "params": {**params, **trained}}

    return Task(
        init=init,
        loss=make_loss(config, model, centers, data.features_of),
        open_training=data.open_training,
        check_batch=data.check_batch,
        evaluators=build_evaluators(
            config.evals,
            "image sets",
            growing_probes.ProbeData(config, model, data),
        ),
        origin=data.origin,
        places={
            "fusion": partial(networks.place, params="fusion"),
            "recognizer": partial(networks.place_backbone, config.train_backbone),
        },
    )


def make_model(options: ConfigDict, *, embed_dim: int) -> nn.Module:
    """Build what the config's section `fusion` names.

    Args:
      options: method (of `registry.FUSIONS`), variant of ClusterAggregate, and fields
        of the method's class; it ignores those of others.
      embed_dim: D.
    Raises: ValueError: unknown method or variant.
    """
    if options.method not in registry.FUSIONS or options.variant not in VARIANTS:
        raise ValueError(
            f"config.fusion.method must be one of {', '.join(registry.FUSIONS)}, and "
            f"variant one of {', '.join(VARIANTS)}; got {options.method!r} and "
            f"{options.variant!r}."
        )
    model = registry.resolve(registry.FUSIONS[options.method])
    if model in (WeightedFusion, ScoredFusion):  # one class for several methods
        return model(embed_dim, options.method)
    own = {field.name for field in dataclasses.fields(model)}
    fields = {name: options[name] for name in options if name in own - {"method"}}
    if model is ClusterAggregate:
        fields |= VARIANTS[options.variant]
    return model(embed_dim=embed_dim, **fields)


def make_loss(
    config: ConfigDict,
    model: nn.Module,
    centers: Array,
    features_of: Callable[..., Features],
) -> Callable[..., Any]:
    """Build the `Task.loss` of Eq. 11.

    N is sampled in the step, the same for all sets of it, and the sets are padded to
    the next of `data.padded_sizes`: these are branches of one compiled program, of
    which a step runs one.

    Args:
      config: reads data: images_per_set (the largest N), padded_sizes; and
        loss.permutation_weight (lambda_p; the official code's 1 is 1 / persons).
      model: `ClusterAggregate` or `WeightedFusion`.
      centers: f_GT [C, D].
      features_of: (params, collections, rows, rng) -> their Features.
    """
    largest, sizes = config.data.images_per_set, tuple(config.data.padded_sizes)
    weight = config.loss.permutation_weight

    def at_size(size, params, collections, batch, number, rng, *, train):
        feature_rng, dropout_rng = jax.random.split(rng)
        rows = {
            name: x.reshape(-1, SETS, largest, *x.shape[1:])[:, :, :size]
            for name, x in batch.items()
        }
        persons = len(rows["label"])
        flat = {name: x.reshape(-1, *x.shape[3:]) for name, x in rows.items()}
        features = features_of(params, collections, flat, feature_rng)
        mask = jnp.broadcast_to(jnp.arange(size) < number, (persons, SETS, size))
        features = jax.tree.map(
            lambda x: x.reshape(*mask.shape, *x.shape[1:]), features
        )
        sets = ImageSets(features, mask)
        variables = networks.own_variables(params, collections, "fusion")
        fused, own = fuse_pairs(model, variables, sets, dropout_rng, train=train)
        wanted = centers[rows["label"][:, 0, 0]]
        template = template_loss(
            jnp.concatenate(list(fused.values())),
            jnp.concatenate([wanted] * len(fused)),
        )
        permutation = permutation_loss(fused["streamed"], fused["at_once"])
        metrics = {"template": template, "permutation": permutation}
        return template + weight * permutation, ({**collections, **own}, metrics)

    def loss(params, collections, batch, rng, *, train):
        size_rng, rng = jax.random.split(rng)
        number = jax.random.randint(size_rng, (), 2, largest + 1)
        branch = jnp.searchsorted(jnp.array(sizes), number)
        branches = [partial(at_size, size, train=train) for size in sizes]
        used = {n: x for n, x in batch.items() if n in image_sets.READ}
        return jax.lax.switch(branch, branches, params, collections, used, number, rng)

    return loss


def fuse_pairs(
    model: nn.Module, variables: Any, sets: ImageSets, rng: Array, *, train: bool
) -> tuple[dict[str, Array], dict[str, Any]]:
    """Fuse two sets of each person alone, one after the other, and both at once.

    The second set's assignment does not depend on the state that it joins, so that the
    stream is the merged states of the two.

    Args:
      model, variables: of the fusion.
      sets: [P, 2, N, ...].
      rng: of drop paths.
      train: batch statistics and drop paths are on.
    Returns: `first`, `second`, `streamed` and `at_once`, float32 [P, D] each; the
      collections afterward.
    """
    persons, count, images = sets.mask.shape
    params = {"params": variables["params"]}
    own = {name: c for name, c in variables.items() if name != "params"}

    def update(own, sets, rng):
        return model.apply(
            {**params, **own},
            model.init_state(len(sets.mask)),
            sets,
            train=train,
            method="update",
            mutable=list(own),
            rngs={"dropout": rng},
        )

    first_rng, second_rng = jax.random.split(rng)
    alone = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), sets)
    states, own = update(own, alone, first_rng)
    joined = jax.tree.map(
        lambda x: x.reshape(persons, count * images, *x.shape[3:]), sets
    )
    at_once, own = update(own, joined, second_rng)
    first, second = (jax.tree.map(lambda x, n=n: x[n::count], states) for n in (0, 1))
    parts = [first, second, model.merge(first, second), at_once]
    together = jax.tree.map(lambda *x: jnp.concatenate(x), *parts)
    fused = model.apply({**params, **own}, together, method="finalize").embeddings
    names = ("first", "second", "streamed", "at_once")
    return dict(zip(names, jnp.split(fused, len(names)), strict=True)), own
