"""What the tasks on digits share: rows, their check, canvas, and evaluators."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from ml_collections import ConfigDict

from kprpe_jax.data import order
from kprpe_jax.data.canvas import distort_on_canvas, place_on_canvas
from kprpe_jax.data.check import check_batch
from kprpe_jax.data.keypoints import box_keypoints, perturb_keypoints
from kprpe_jax.data.rows import read_all
from kprpe_jax.data.store import open_split
from kprpe_jax.evaluation.evaluators import Evaluator, build_evaluators, entries
from kprpe_jax.evaluation.evaluators.accuracy import Condition, DigitData, Predict
from kprpe_jax.tasks.task import TrainingRows


def open_training(config: ConfigDict, seed: int) -> TrainingRows:
    """The config's training split, shuffled."""
    source = open_split(config.data.dir, config.data.name, config.data.train_split)
    return TrainingRows(source, order.shuffled(len(source), seed=seed))


def batch_check(config: ConfigDict) -> Callable[[dict], None]:
    """`check_batch` with the sizes of the config's data."""
    return partial(
        check_batch,
        num_classes=config.data.num_classes,
        image_shape=tuple(config.data.image_shape),
        num_keypoints=config.data.num_keypoints,
    )


def row(config: ConfigDict) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of a row, as the loader gives it."""
    points = (config.data.num_keypoints, 2)
    return {
        "image": jax.ShapeDtypeStruct(tuple(config.data.image_shape), np.uint8),
        "label": jax.ShapeDtypeStruct((), np.int32),
        "keypoints": jax.ShapeDtypeStruct(points, np.float32),
    }


def training_inputs(
    batch: dict[str, Array], rng: Array, config: ConfigDict
) -> tuple[Array, Array]:
    """Place the batch at random on the canvas: translation only, as affNIST trains.

    Args and Returns: as `condition_inputs`.
    """
    arrays = batch["image"], batch["keypoints"]
    return place_on_canvas(rng, *arrays, canvas_size=config.canvas.size)


def condition_inputs(
    batch: dict[str, Array],
    rng: Array,
    severity: Array,
    alpha: Array,
    *,
    condition: Condition,
    config: ConfigDict,
) -> tuple[Array, Array]:
    """Distort the batch as an evaluation condition says.

    Args:
      batch: image uint8 [B, h, w, 1 or 3]; keypoints float32 [B, K, 2].
      rng: key of this batch.
      severity, alpha: float32 scalars, the condition's numbers; apart from it so that
        conditions which differ only there share one compiled program.
      condition: how keypoints are found and perturbed.
      config: reads `canvas`.
    Returns: images float32 [B, H, W, 3] in [-1, 1]; keypoints float32 [B, K, 2].
    """
    size, arrays = config.canvas.size, (batch["image"], batch["keypoints"])
    if not condition.distorted:
        return place_on_canvas(None, *arrays, canvas_size=size, mode="center")
    distort_rng, noise_rng = jax.random.split(rng)
    images, keypoints = distort_on_canvas(
        distort_rng, *arrays, canvas_size=size, severity=severity
    )
    if condition.keypoints == "box":
        keypoints = box_keypoints((images + 1) * 127.5)
    elif condition.keypoints == "swapped":
        keypoints = jnp.roll(keypoints, 1, axis=0)
    keypoints = perturb_keypoints(
        noise_rng, keypoints, alpha=alpha, noise=condition.noise
    )
    return images, keypoints


def evaluators(
    predict: Predict, config: ConfigDict, uses_keypoints: bool
) -> dict[str, Evaluator]:
    """The evaluators of `config.evals`, on the test split.

    Those of keypoints are left out for a network that reads none (`uses_keypoints`).
    """
    data = config.data
    if not entries(config.evals):
        return {}  # and no test split is needed
    return build_evaluators(
        config.evals,
        "digits",
        DigitData(
            predict,
            partial(condition_inputs, config=config),
            read_all(open_split(data.dir, data.name, data.test_split)),
            batch_size=config.evals.batch_size,
            uses_keypoints=uses_keypoints,
        ),
    )
