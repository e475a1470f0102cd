"""Classification with a linear layer on the embedding: the paper's digits experiment.

Source: KP-RPE, Fig. 1.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh
from ml_collections import ConfigDict

from kprpe_jax.backbones.network import Network
from kprpe_jax.tasks import digits, networks
from kprpe_jax.tasks.task import Task


class Classifier(nn.Module):
    """A backbone and a linear layer.

    Attributes:
      backbone: images and keypoints to embeddings.
      num_classes: C.
    """

    backbone: Network
    num_classes: int

    @nn.compact
    def __call__(
        self, images: Array, keypoints: Array | None = None, *, train: bool = False
    ) -> Array:
        """Class scores, float32 [B, num_classes]; arguments as the backbone's."""
        embedding = self.backbone(images, keypoints, train=train)
        return nn.Dense(self.num_classes, name="classifier")(embedding)


def build(config: ConfigDict, mesh: Mesh) -> Task:
    """Build the task; see `Task`.

    Raises: ValueError: the model does not fit the canvas; no such data set.
    """
    network = networks.make_network(config, mesh)
    spec = networks.check_canvas(config, network)
    num_classes = config.data.num_classes
    model = Classifier(network, num_classes)
    examples = networks.example_inputs(spec, mesh.size)

    def loss(params, collections, batch, rng, *, train):
        place_rng, dropout_rng = jax.random.split(rng)
        scores, collections = model.apply(
            {"params": params, **collections},
            *spec.arguments(*digits.training_inputs(batch, place_rng, config)),
            train=train,
            mutable=list(collections),
            rngs={"dropout": dropout_rng},
        )
        targets = optax.smooth_labels(
            jax.nn.one_hot(batch["label"], num_classes), config.loss.label_smoothing
        )
        value = optax.softmax_cross_entropy(scores, targets).mean()
        accuracy = (scores.argmax(-1) == batch["label"]).mean(dtype=jnp.float32)
        return value, (collections, {"accuracy": accuracy})

    def predict(params, collections, images, keypoints):
        read = spec.arguments(images, keypoints)
        return model.apply({"params": params, **collections}, *read)

    return Task(
        init=partial(networks.init, model, examples),
        loss=loss,
        open_training=partial(digits.open_training, config),
        check_batch=digits.batch_check(config),
        row=digits.row(config),
        evaluators=digits.evaluators(predict, config, spec.uses_keypoints),
        places={
            "recognizer": partial(networks.place, params="backbone", others="backbone")
        },
        grid=network.grid,
    )
