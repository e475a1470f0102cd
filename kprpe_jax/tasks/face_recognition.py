"""Face recognition: `recognition` on an imported data set of faces.

Source: KP-RPE, Sec. 4.1 and Supp. 2.1.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh
from ml_collections import ConfigDict

from kprpe_jax.backbones.iresnet import IResNet
from kprpe_jax.backbones.mobilefacenet import MobileFaceNet
from kprpe_jax.backbones.vit import ViT
from kprpe_jax.evaluation.conditions import Evaluator, merge_evaluators
from kprpe_jax.evaluation.embedding import Embed
from kprpe_jax.tasks import faces, inputs, recognition
from kprpe_jax.tasks.task import Task
from kprpe_jax.weights import iresnet, mobilefacenet, vit

BACKBONES = {"vit": ViT, "iresnet": IResNet, "mobilefacenet": MobileFaceNet}


def build(config: ConfigDict, mesh: Mesh) -> Task:
    """Build the task; see `Task`.

    Raises: ValueError: a backbone, loss or recipe that is unknown; image sizes of model
      and data that differ; no such data set, people or pairs; evaluators of one name.
    """
    model, read = make_backbone(config, mesh)
    augmented = faces.augmentation(config, mesh)

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
        init=partial(recognition.init, config, mesh, model, read(*examples)),
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
      model: from `make_backbone`.
      path: as `load_state_dict` takes it.
    Raises: ValueError: lists what does not fit.
    """
    reader = {
        ViT: vit.import_weights,
        IResNet: iresnet.import_weights,
        MobileFaceNet: mobilefacenet.import_weights,
    }[type(model)]
    variables = dict(reader(model, path))
    return {**variables, "params": {"backbone": variables["params"]}}


def make_backbone(
    config: ConfigDict, mesh: Mesh
) -> tuple[nn.Module, Callable[[Array, Array], tuple[Array, ...]]]:
    """Build the backbone that `config.backbone` names from the section `model`.

    Returns: the network, and a function from images and all keypoints to what it reads.
    Raises: ValueError: unknown backbone, fields of another one (`network_fields`),
      other image sizes than the data's, more keypoints than the data has.
    """
    if config.backbone not in BACKBONES:
        raise ValueError(
            "config.backbone must be vit, iresnet or mobilefacenet; got "
            f"{config.backbone!r}."
        )
    network = BACKBONES[config.backbone]
    model = network(**inputs.network_fields(network, config.model))
    size = tuple(config.data.image_shape[:2])
    if config.backbone == "mobilefacenet" and model.image_size[0] == size[0]:
        size = model.image_size  # reads the middle columns of a wider image
    if model.image_size != size:
        raise ValueError(
            f"config.model.image_size must be that of config.data.image_shape, {size}; "
            f"got {model.image_size}; change one of them."
        )
    if config.backbone == "iresnet":
        return model, lambda images, keypoints: (images,)
    if config.backbone == "mobilefacenet":

        def middle(images: Array, keypoints: Array) -> tuple[Array, ...]:
            left = (images.shape[2] - size[1]) // 2  # 0 where they are cut already
            return (images[:, :, left : left + size[1]],)

        return model, middle
    used, given = config.model.position_options.num_keypoints, config.data.num_keypoints
    if not 1 <= used <= given:
        raise ValueError(
            "config.model.position_options.num_keypoints must lie in 1 .. "
            f"config.data.num_keypoints = {given}; got {used}."
        )
    model = inputs.make_vit(config.model, mesh)
    return model, partial(inputs.finish, config=config)
