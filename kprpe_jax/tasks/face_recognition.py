"""Face recognition: `recognition` on an imported data set of faces.

Source: KP-RPE, Sec. 4.1 and Supp. 2.1.
"""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh
from ml_collections import ConfigDict

from kprpe_jax.backbones.iresnet import IResNet
from kprpe_jax.backbones.vit import ViT
from kprpe_jax.tasks import faces, inputs, recognition
from kprpe_jax.tasks.task import Task


def build(config: ConfigDict, mesh: Mesh) -> Task:
    """Build the task; see `Task`.

    Raises: ValueError: a backbone, loss or recipe that is unknown; image sizes of model
      and data that differ; no such data set or people.
    """
    data = config.data
    if tuple(config.model.image_size) != tuple(data.image_shape[:2]):
        raise ValueError(
            "config.model.image_size must be that of config.data.image_shape, "
            f"{tuple(data.image_shape[:2])}; got {tuple(config.model.image_size)}; "
            "change one of them."
        )
    model, read = make_backbone(config, mesh)
    augmented = faces.augmentation(config)

    def training_inputs(batch, rng):
        return read(*augmented(batch, rng))

    def embed(params, collections, images, keypoints):
        inputs = read(images, keypoints)
        return recognition.embed(model, params, collections, *inputs)

    examples = (
        jnp.zeros((mesh.size, *config.data.image_shape)),
        jnp.zeros((mesh.size, config.data.num_keypoints, 2)),
    )
    return Task(
        init=partial(recognition.init, config, model, read(*examples)),
        loss=recognition.make_loss(config, mesh, model, training_inputs),
        open_training=partial(faces.open_training, config),
        check_batch=faces.batch_check(
            config,
            needs_keypoints=isinstance(model, ViT) and model.uses_keypoints,
        ),
        evaluators=faces.evaluators(embed, config),
        sharding_rules=recognition.SHARDING_RULES,
    )


def make_backbone(
    config: ConfigDict, mesh: Mesh
) -> tuple[nn.Module, Callable[[Array, Array], tuple[Array, ...]]]:
    """Build the backbone that `config.backbone` names from the section `model`.

    Returns: the network, and a function from images and all keypoints to what it reads.
    Raises: ValueError: unknown backbone, more keypoints than the data has.
    """
    if config.backbone == "iresnet":
        fields = config.model.to_dict()
        fields["stage_sizes"] = tuple(fields["stage_sizes"])
        fields["image_size"] = tuple(fields["image_size"])
        fields["dtype"] = jnp.dtype(fields["dtype"])
        return IResNet(**fields), lambda images, keypoints: (images,)
    if config.backbone != "vit":
        raise ValueError(
            f"config.backbone must be vit or iresnet; got {config.backbone!r}."
        )
    used, given = config.model.position_options.num_keypoints, config.data.num_keypoints
    if not 1 <= used <= given:
        raise ValueError(
            "config.model.position_options.num_keypoints must lie in 1 .. "
            f"config.data.num_keypoints = {given}; got {used}."
        )
    model = inputs.make_vit(config.model, mesh)
    return model, lambda images, keypoints: (images, keypoints[:, :used])
