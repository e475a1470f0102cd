"""From a batch on the devices to what a backbone reads: images and keypoints."""

import jax
import jax.numpy as jnp
from jax import Array
from ml_collections import ConfigDict

from kprpe_jax.data.canvas import distort_on_canvas, place_on_canvas
from kprpe_jax.data.keypoints import box_keypoints, perturb_keypoints
from kprpe_jax.evaluation.evaluators.accuracy import Condition


def training_inputs(
    batch: dict[str, Array], rng: Array, config: ConfigDict
) -> tuple[Array, Array]:
    """Place the batch at random on the canvas: translation only, as affNIST trains.

    Args:
      batch: image uint8 [B, h, w, 1 or 3]; keypoints float32 [B, K, 2].
      rng: key.
      config: the whole configuration; reads `canvas`.
    Returns: images float32 [B, H, W, 3] in [-1, 1]; keypoints float32 [B, K, 2].
    """
    return place_on_canvas(
        rng, batch["image"], batch["keypoints"], canvas_size=config.canvas.size
    )


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
      batch, config: as `training_inputs`.
      rng: key of this batch.
      severity, alpha: float32 scalars, the condition's numbers; apart from it so that
        conditions which differ only there share one compiled program.
      condition: how keypoints are found and perturbed.
    Returns: as `training_inputs`.
    """
    if not condition.distorted:
        return place_on_canvas(
            None,
            batch["image"],
            batch["keypoints"],
            canvas_size=config.canvas.size,
            mode="center",
        )
    distort_rng, noise_rng = jax.random.split(rng)
    images, keypoints = distort_on_canvas(
        distort_rng,
        batch["image"],
        batch["keypoints"],
        canvas_size=config.canvas.size,
        severity=severity,
    )
    if condition.keypoints == "box":
        keypoints = box_keypoints((images + 1) * 127.5)
    elif condition.keypoints == "swapped":
        keypoints = jnp.roll(keypoints, 1, axis=0)
    keypoints = perturb_keypoints(
        noise_rng, keypoints, alpha=alpha, noise=condition.noise
    )
    return images, keypoints
