"""Face recognition: `recognition` on an imported data set of faces.

Source: KP-RPE, Sec. 4.1 and Supp. 2.1.
"""

from functools import partial
from typing import Any

import flax.linen as nn
from jax.sharding import Mesh
from ml_collections import ConfigDict

from kprpe_jax import weights
from kprpe_jax.evaluation.conditions import Evaluator, merge_evaluators
from kprpe_jax.evaluation.embedding import Embed
from kprpe_jax.tasks import faces, networks, recognition
from kprpe_jax.tasks.task import Task


def build(config: ConfigDict, mesh: Mesh) -> Task:
    """Build the task; see `Task`.

    Raises: ValueError: a backbone, loss or recipe that is unknown; image sizes of model
      and data that differ; no such data set, people or pairs; evaluators of one name.
    """
    model = networks.make_network(config, mesh)
    spec = networks.check_data(config, model)
    augmented = faces.augmentation(config, mesh)

    def training_inputs(batch, rng):
        return spec.arguments(*augmented(batch, rng))

    def embed(params, collections, images, keypoints):
        read = spec.arguments(images, keypoints)
        return recognition.embed(model, params, collections, *read)

    examples = networks.example_inputs(spec, mesh.size)
    return Task(
        init=partial(recognition.init, config, mesh, model, examples),
        loss=recognition.make_loss(config, mesh, model, training_inputs),
        open_training=partial(faces.open_training, config),
        check_batch=faces.batch_check(config),
        evaluators=_evaluators(embed, config),
        sharding_rules=recognition.SHARDING_RULES,
        sample_classes=recognition.make_sampler(config, mesh),
        import_weights=partial(import_weights, model),
    )


def _evaluators(embed: Embed, config: ConfigDict) -> dict[str, Evaluator]:
    groups = (
        faces.evaluators,
        faces.pair_evaluators,
        faces.altered_evaluators,
        faces.unaligned_evaluators,
        faces.protocol_evaluators,
    )
    return merge_evaluators(
        named for group in groups for named in group(embed, config).items()
    )


def import_weights(model: nn.Module, path: str) -> dict[str, Any]:
    """Read published weights of the backbone; the class centers are not among them.

    Args:
      model: from `make_network`.
      path: as `load_state_dict` takes it.
    Raises: ValueError: lists what does not fit.
    """
    variables = weights.import_weights(model, path)
    return {**variables, "params": {"backbone": variables["params"]}}
