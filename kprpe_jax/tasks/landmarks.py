"""Training of the differentiable face aligner: a detector and the mixer of its anchors.

Source: KP-RPE, Supp. 3.
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

from kprpe_jax.alignment.crops import Crops, crop_faces, keypoint_boxes
from kprpe_jax.augmentation.sharded import augment_sharded
from kprpe_jax.core.checks import check_field
from kprpe_jax.core.input_spec import to_unit_range
from kprpe_jax.detection.detections import decode_detections, largest_face
from kprpe_jax.detection.differentiable_aligner import DifferentiableAligner, OneFace
from kprpe_jax.detection.priors import CENTER_VARIANCE, Anchors, make_priors
from kprpe_jax.detection.retinaface import Heads
from kprpe_jax.evaluation.evaluators import Evaluator, build_evaluators
from kprpe_jax.evaluation.evaluators.landmark_errors import LandmarkData
from kprpe_jax.losses.multibox import Targets, multibox_loss, smooth_l1
from kprpe_jax.tasks import faces, networks
from kprpe_jax.tasks.task import Task

BOXES = ("points", "frame")
_MIDDLE = np.array([[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]], np.float32)


def build(config: ConfigDict, mesh: Mesh) -> Task:
    """Build the task; see `Task`.

    Reads model (fields of DifferentiableAligner, anchors as a list of sizes a level),
    crop (box: whose box a face's is, of its `points` or the middle half of the `frame`
    as `wider_face` imports it; padding, jitter), loss (mixer_weight), data (points, of
    which keypoints are the five to find).

    Raises: ValueError: rows without such points; points whose mirror images are not
      known; an unknown recipe.
    """
    data = config.data
    if data.num_keypoints not in faces.MIRRORS:
        raise ValueError(
            f"config.data.num_keypoints must be one of {sorted(faces.MIRRORS)}, whose "
            f"mirror images are known; got {data.num_keypoints}; read other points."
        )
    check_field("config.crop.box", config.crop.box, BOXES)
    model = make_model(config.model)
    priors = make_priors((model.input_size,) * 2, model.anchors)
    cut = _cropper(config, mesh)
    example = jnp.zeros((mesh.size, model.input_size, model.input_size, 3))

    def init(rng: Array) -> dict[str, Any]:
        return model.init(rng, example, train=True, method="find_face")

    def loss(params, collections, batch, rng, *, train):
        crops = cut(batch, rng)
        (face, heads), collections = model.apply(
            {"params": params, **collections},
            crops.images,
            train=train,
            method="find_face",
            mutable=list(collections),
        )
        return _loss(config, priors, crops, face, heads, collections)

    return Task(
        init=init,
        loss=loss,
        open_training=partial(faces.open_training, config),
        check_batch=faces.batch_check(config),
        row=faces.row(config),
        evaluators=_evaluators(model, config),
        places={"detector": _place},
    )


def _place(variables: Any) -> dict[str, Any]:
    """Variables of an aligner, or of the RetinaFace inside of one."""
    below = "" if "detector" in variables["params"] else "detector"
    return networks.place(variables, params=below, others=below)


def make_model(fields: ConfigDict) -> DifferentiableAligner:
    """The aligner of a config's section `model`."""
    values = networks.model_fields(fields)
    values["anchors"] = Anchors(tuple(map(tuple, values["anchors"])))
    values["dtype"] = jnp.dtype(values["dtype"])
    return DifferentiableAligner(**values)


def _loss(config, priors, crops: Crops, face: OneFace, heads: Heads, collections):
    """Multi-box loss, and that of the mixed landmarks."""
    ones = jnp.ones((len(crops.boxes), 1), bool)
    targets = Targets(crops.boxes[:, None], crops.keypoints[:, None], ones, ones)
    multibox = multibox_loss(heads, targets, priors)
    # In tenths of the image, as the anchors' offsets are in tenths of theirs.
    difference = (face.keypoints - crops.keypoints) / CENTER_VARIANCE
    mixed = smooth_l1(difference, 0.0).sum((-2, -1)).mean()
    metrics = {
        "boxes": multibox.boxes,
        "keypoints": multibox.keypoints,
        "scores": multibox.scores,
        "mixed": mixed,
        "score": face.score.mean(),
    }
    total = multibox.total + config.loss.mixer_weight * mixed
    return total, (collections, metrics)


def _cropper(
    config: ConfigDict, mesh: Mesh
) -> Callable[[dict[str, Array], Array], Crops]:
    """Augment the frame, then cut its face."""
    recipe, crop = faces.read_recipe(config), config.crop
    mirror = faces.MIRRORS[config.data.num_keypoints]
    count = len(mirror)
    if crop.box == "frame":  # its corners move along
        mirror = (*mirror, *(count + i for i in (1, 0, 3, 2)))
    keep = np.array(config.data.five)

    def cut(batch: dict[str, Array], rng: Array) -> Crops:
        augment_rng, jitter_rng = jax.random.split(rng)
        points = with_frame(crop.box, batch["keypoints"])
        images, points = augment_sharded(
            augment_rng, batch["image"], points, recipe, mesh=mesh, mirror=mirror
        )
        crops = crop_faces(
            images,
            points[:, :count],
            boxes=face_boxes(crop.box, points),
            size=config.model.input_size,
            padding=crop.padding,
            jitter=crop.jitter,
            rng=jitter_rng,
        )
        return crops._replace(keypoints=crops.keypoints[:, keep])

    return cut


def with_frame(box: str, keypoints: Array) -> Array:
    """Keypoints [B, K, 2] and, for the box `frame`, its corners: [B, K + 4, 2]."""
    if box == "points":
        return keypoints
    corners = jnp.broadcast_to(_MIDDLE, (len(keypoints), *_MIDDLE.shape))
    return jnp.concatenate([keypoints, corners], axis=1)


def face_boxes(box: str, points: Array) -> Array:
    """Boxes [B, 4] of faces by the points of `with_frame`, moved or not."""
    return keypoint_boxes(points if box == "points" else points[:, -4:])


def _evaluators(
    model: DifferentiableAligner, config: ConfigDict
) -> dict[str, Evaluator]:
    """The evaluators of `config.evals`."""
    keep = np.array(config.data.five)

    @partial(jax.jit, static_argnames="min_score")
    def predict(params, collections, batch, *, min_score):
        points = with_frame(config.crop.box, batch["keypoints"])
        crops = crop_faces(
            to_unit_range(batch["image"]),
            batch["keypoints"],
            boxes=face_boxes(config.crop.box, points),
            size=model.input_size,
            padding=config.crop.padding,
        )
        variables = {"params": params, **collections}
        face, heads = model.apply(variables, crops.images, method="find_face")
        mixed = face.keypoints, face.score > min_score
        best = best_anchor(heads, model, min_score=min_score)
        return {"mixer": mixed, "nms": best}, crops.keypoints[:, keep], crops.boxes

    data = LandmarkData(
        predict, partial(faces.open_people, config), batch_size=config.evals.batch_size
    )
    return build_evaluators(config.evals, "landmarks", data)


def best_anchor(
    heads: Heads, model: DifferentiableAligner, *, min_score: float
) -> tuple[Array, Array]:
    """The face of plain RetinaFace: its largest after suppression.

    Returns: keypoints [B, K, 2], fractions of the input; bool [B], whether there is
      one.
    """
    found = decode_detections(
        heads,
        (model.input_size,) * 2,
        max_faces=4,
        anchors=model.anchors,
        min_score=min_score,
    )
    return largest_face(found)
