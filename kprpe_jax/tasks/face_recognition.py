"""Face recognition: `recognition` on an imported data set of faces.

Source: KP-RPE, Sec. 4.1 and Supp. 2.1.
"""

from functools import partial
from typing import Any

from jax.sharding import Mesh
from ml_collections import ConfigDict

from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.tasks import faces, networks, recognition
from kprpe_jax.tasks.task import Task


def build(config: ConfigDict, mesh: Mesh) -> Task:
    """Build the task; see `Task`.

    Raises: ValueError: a backbone, loss or recipe that is unknown; image sizes of model
      and data that differ; no such data set, people or pairs; as `build_evaluators`.
    """
    model = networks.make_network(config, mesh)
    spec = networks.check_data(config, model)
    augmented = faces.augmentation(config, mesh)

    def training_inputs(batch, rng):
        return spec.arguments(*augmented(batch, rng))

    def recognizer(state: Any) -> Recognizer:
        own = recognition.backbone_collections(state.collections)
        variables = {"params": state.params["backbone"], **own}
        return Recognizer(variables, model, spec, config.backbone)

    examples = networks.example_inputs(spec, mesh.size)
    return Task(
        init=partial(recognition.init, config, mesh, model, examples),
        loss=recognition.make_loss(config, mesh, model, training_inputs),
        open_training=partial(
            faces.open_training, config, needs_keypoints=model.uses_keypoints
        ),
        check_batch=faces.batch_check(config),
        evaluators=faces.evaluators(config, needs_keypoints=model.uses_keypoints),
        recognizer=recognizer,
        sharding_rules=recognition.SHARDING_RULES,
        sample_classes=recognition.make_sampler(config, mesh),
        places=recognition.PLACES,
        grid=model.grid,
        row=faces.row(config),
    )
