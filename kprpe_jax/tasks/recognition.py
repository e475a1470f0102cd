"""Recognition: a backbone trained with margin softmax over sharded class centres.

Source: KP-RPE, Sec. 4.1 and Supp. 2.1.
"""

import jax
from jax import Array
from jax.sharding import Mesh, PartitionSpec
from ml_collections import ConfigDict

from kprpe_jax.losses.class_centers import margin_softmax, padded_classes
from kprpe_jax.losses.margin import make_margin, unit
from kprpe_jax.tasks import digits, inputs
from kprpe_jax.tasks.task import Task


def build(config: ConfigDict, mesh: Mesh) -> Task:
    """Build the task; see `Task`.

    Raises: ValueError: the model does not fit the canvas; unknown loss; no such data
      set.
    """
    inputs.check_model(config)
    num_classes = config.data.num_classes
    model = inputs.make_vit(config.model, mesh)
    model_inputs = inputs.example_inputs(config, mesh)
    margin = make_margin(
        config.loss.margin_kind,
        margin=config.loss.margin,
        scale=config.loss.scale,
        gradient=config.loss.margin_gradient,
    )

    def init(rng: Array) -> dict:
        params_rng, dropout_rng, centers_rng = jax.random.split(rng, 3)
        rngs = {"params": params_rng, "dropout": dropout_rng}
        variables = model.init(rngs, *model_inputs, train=True)
        shape = (padded_classes(num_classes), config.model.output_dim)
        centers = 0.01 * jax.random.normal(centers_rng, shape)
        params = {"backbone": variables["params"], "class_centers": centers}
        return {**variables, "params": params}

    def loss(params, collections, batch, rng, *, train):
        place_rng, dropout_rng = jax.random.split(rng)
        embeddings, collections = model.apply(
            {"params": params["backbone"], **collections},
            *inputs.training_inputs(batch, place_rng, config),
            train=train,
            mutable=list(collections),
            rngs={"dropout": dropout_rng},
        )
        result = margin_softmax(
            embeddings,
            params["class_centers"],
            batch["label"],
            margin=margin,
            num_classes=num_classes,
            mesh=mesh,
        )
        return result.loss, (collections, {"accuracy": result.accuracy})

    def predict(params, collections, images, keypoints):
        variables = {"params": params["backbone"], **collections}
        embeddings = unit(model.apply(variables, images, keypoints))
        return embeddings @ unit(params["class_centers"][:num_classes]).T

    return Task(
        init=init,
        loss=loss,
        check_batch=digits.batch_check(config),
        evaluators=digits.evaluators(predict, config),
        sharding_rules=((r"class_centers", PartitionSpec("class")),),
    )
