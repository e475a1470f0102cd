"""Recognition and alignment learned together, with a tunable strength of alignment.

Source: Balanced Alignment, Sec. 4 (Eq. 5) and Sec. 5.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh
from ml_collections import ConfigDict

from kprpe_jax.alignment import warps
from kprpe_jax.alignment.aligned_backbone import AlignedBackbone
from kprpe_jax.alignment.template import frontal_template, read_template
from kprpe_jax.core.input_spec import InputSpec
from kprpe_jax.data.faces import landmarks_of
from kprpe_jax.data.store import open_split
from kprpe_jax.evaluation.evaluators import Evaluator, build_evaluators
from kprpe_jax.evaluation.evaluators.aligned_recognition import AlignedData, Forward
from kprpe_jax.evaluation.evaluators.faces import FaceData
from kprpe_jax.losses.alignment import alignment_loss
from kprpe_jax.tasks import faces, networks, recognition
from kprpe_jax.tasks.task import Task

_FIRST_LOGIT = 2.2  # of the weights of the landmarks, which start at 0.9
FRONTAL = "frontal"
LANDMARK_METHODS = tuple(method for method in warps.GIVEN if method != "none")


def build(config: ConfigDict, mesh: Mesh) -> Task:
    """Build the task; see `Task`.

    Reads alignment: strength (lambda of Eq. 5), method, after, control and localization
    of `AlignedBackbone`; points (eyes, nose and mouth corners among the landmarks);
    template ("frontal" or an .npz file), learn_template, learn_weights.

    Raises: ValueError: as `face_recognition.build`; an unknown method; flips of
      landmarks whose mirror images are not known; a template of other landmarks.
    """
    data = config.data
    if tuple(config.model.image_size) != tuple(data.image_shape[:2]):
        raise ValueError(
            "config.model.image_size must be that of config.data.image_shape, "
            f"{tuple(data.image_shape[:2])}; got {tuple(config.model.image_size)}; "
            "change one of them."
        )
    template = make_template(config)
    model = make_network(config, template, mesh)
    spec = networks.check_data(config, model)
    # All landmarks, of which the network takes what it reads.
    examples = spec.apply(
        jnp.zeros((mesh.size, *data.image_shape)),
        jnp.tile(template, (mesh.size, 1, 1)),
    )

    def forward(params, collections, images, landmarks):
        own = recognition.backbone_collections(collections)
        variables = {"params": params["backbone"], **own}
        inputs = spec.apply(images, landmarks)
        result = model.apply(variables, *inputs, method="aligned")
        return result.embeddings, warps.carry_keypoints(result.warp, landmarks)

    return Task(
        init=partial(_init, config, mesh, model, examples),
        loss=_make_loss(config, mesh, model, spec, template),
        open_training=partial(
            faces.open_training, config, needs_keypoints=model.uses_keypoints
        ),
        check_batch=faces.batch_check(config),
        row=faces.row(config),
        evaluators=_evaluators(forward, config, model.uses_keypoints),
        sharding_rules=recognition.SHARDING_RULES,
        sample_classes=recognition.make_sampler(config, mesh),
        origin={"template": template.tolist()},
        places={"recognizer": _place},
        grid=model.grid,
    )


def _place(variables: Any) -> dict[str, Any]:
    """Variables of a backbone, or of one that has an aligner already."""
    below = "" if "backbone" in variables["params"] else "backbone"
    own = networks.place(variables, params=below, others=below)
    return networks.place(own, params="backbone")


def make_network(
    config: ConfigDict, template: np.ndarray, mesh: Mesh | None = None
) -> AlignedBackbone:
    """Build the backbone with its aligner.

    Args:
      config: of the run.
      template: float32 [S, 2] of `make_template`, or of the run's `origin`.
      mesh: of `networks.make_network`.
    """
    options = config.alignment
    return AlignedBackbone(
        networks.make_network(config, mesh),
        method=options.method,
        after=options.after,
        control=tuple(options.control),
        template=tuple(map(tuple, np.float32(template).tolist())),
        points=tuple(options.points),
        localization=options.localization.to_dict(),
    )


def make_template(config: ConfigDict) -> np.ndarray:
    """The template that learning starts from, float32 [S, 2], fractions of the image.

    Landmarks that are missing do not enter the mean.

    Raises: ValueError: as `read_template`; data without such points; no landmarks where
      the warp or the loss needs a template.
    """
    data, options = config.data, config.alignment
    faces.open_people(config, data.train_split)  # says what is wrong with the data
    if options.template != FRONTAL:
        return read_template(options.template, data.num_keypoints)
    rows = open_split(data.dir, data.name, data.train_split)
    first, last = data.train_identities or (0, np.iinfo(np.int32).max)
    shapes = [
        landmarks_of(row, data.points)
        for start in range(0, len(rows), 4096)
        for row in rows.__getitems__(range(start, min(start + 4096, len(rows))))
        if first <= row["label"] < last
    ]
    shapes = np.stack(shapes) if shapes else np.empty((0, data.num_keypoints, 2))
    shapes = shapes[np.isfinite(shapes).any((1, 2))]
    if len(shapes):
        return frontal_template(shapes, tuple(options.points))
    if options.strength or options.method in LANDMARK_METHODS:
        raise ValueError(
            f"config.alignment.template: no training image of {data.name} has "
            "landmarks to make the template from; name an .npz file, or import the "
            "data with --landmarks or --detector"
        )
    return np.full((data.num_keypoints, 2), 0.5, np.float32)  # nothing reads it


def learned_template(params: Any, template: np.ndarray) -> np.ndarray:
    """The template of a state, [S, 2]; `template` where it is not learned."""
    return template + params.get("alignment", {}).get("template_keypoints", 0.0)


def landmark_weights(params: Any, count: int) -> Array:
    """The weights alpha of a state, [S]; ones where they are not learned."""
    logits = params.get("alignment", {}).get("weight_logits")
    return jnp.ones(count) if logits is None else jax.nn.sigmoid(logits)


def _init(
    config: ConfigDict,
    mesh: Mesh,
    model: AlignedBackbone,
    model_inputs: tuple[Array, ...],
    rng: Array,
) -> dict[str, Any]:
    variables = recognition.init(config, mesh, model, model_inputs, rng)
    count, own = config.data.num_keypoints, {}
    # As a distance from the first one: nothing pulls it toward the corner. Its name
    # keeps it from weight decay.
    if config.alignment.learn_template:
        own["template_keypoints"] = jnp.zeros((count, 2))
    if config.alignment.learn_weights:
        own["weight_logits"] = jnp.full(count, _FIRST_LOGIT)
    params = {**variables["params"], **({"alignment": own} if own else {})}
    return {**variables, "params": params}


def _make_loss(
    config: ConfigDict,
    mesh: Mesh,
    model: AlignedBackbone,
    spec: InputSpec,
    template: np.ndarray,
) -> Callable[..., Any]:
    """Build the `Task.loss`: L_fr + lambda L_align, Eq. 5.

    Landmarks that are missing, which are stored as zeros, do not enter L_align.
    """
    class_loss = recognition.make_class_loss(config, mesh)
    augmented = faces.augmentation(config, mesh)

    def loss(params, collections, batch, rng, *, train):
        augment_rng, dropout_rng = jax.random.split(rng)
        images, landmarks = augmented(batch, augment_rng)
        known = batch["has_keypoints"][:, None]
        if "keypoint_mask" in batch:
            known = jnp.isfinite(landmarks).all(-1)
            landmarks = jnp.where(known[..., None], landmarks, 0.0)
        own = recognition.backbone_collections(collections)
        result, own = model.apply(
            {"params": params["backbone"], **own},
            *spec.apply(images, landmarks),
            train=train,
            method="aligned",
            mutable=list(own),
            rngs={"dropout": dropout_rng},
        )
        recognition_loss, others, metrics = class_loss(
            result.embeddings, params["class_centers"], batch["label"], collections
        )
        points = 2 * learned_template(params, template) - 1
        points = jnp.broadcast_to(points, landmarks.shape)
        aligned = alignment_loss(
            (result.warp.to_input(points) + 1) / 2,
            landmarks,
            landmark_weights(params, len(template)),
            known,
        )
        metrics |= {
            "recognition_loss": recognition_loss,
            "alignment_loss": aligned.total,
            "alignment_pixels": aligned.distance,
        }
        strength = config.alignment.strength
        total = recognition_loss
        if strength:  # at 0 a warp that diverged must not reach the loss as 0 * NaN
            total += strength * aligned.total
        return total, ({**own, **others}, metrics)

    return loss


def _evaluators(
    forward: Forward, config: ConfigDict, needs_keypoints: bool
) -> dict[str, Evaluator]:
    """The evaluators of `config.evals`, of `aligned_recognition`."""
    data = FaceData.of(config, needs_keypoints=needs_keypoints)
    eyes = tuple(config.alignment.points[:2])
    return build_evaluators(
        config.evals, "aligned faces", AlignedData(forward, data, eyes)
    )
