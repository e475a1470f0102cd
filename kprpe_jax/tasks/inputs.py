"""From a batch on the devices to what a backbone reads: images and keypoints."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh
from ml_collections import ConfigDict

from kprpe_jax.backbones.vit import ViT
from kprpe_jax.data.canvas import distort_on_canvas, place_on_canvas
from kprpe_jax.data.keypoints import box_keypoints, draw_keypoints, perturb_keypoints
from kprpe_jax.evaluation.conditions import Condition
from kprpe_jax.position.encoding import KEYPOINT_FORMS
from kprpe_jax.training.mesh import batch_sharding

DRAWN_RADIUS = 1.5  # pixels, of the discs that `absolute_drawn` shows the network


def training_inputs(
    batch: dict[str, Array], rng: Array, config: ConfigDict
) -> tuple[Array, Array]:
    """Place the batch at random on the canvas: translation only, as affNIST trains.

    Args:
      batch: image uint8 [B, h, w, 1 or 3]; keypoints float32 [B, K, 2].
      rng: key.
      config: the whole configuration; reads `canvas` and `model`.
    Returns: images float32 [B, H, W, 3] in [-1, 1]; keypoints float32 [B, K, 2].
    """
    images, keypoints = place_on_canvas(
        rng, batch["image"], batch["keypoints"], canvas_size=config.canvas.size
    )
    return finish(images, keypoints, config)


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
    return finish(images, keypoints, config)


def ready_inputs(
    batch: dict[str, Array],
    rng: Array,
    severity: Array,
    alpha: Array,
    *,
    condition: Condition,
    config: ConfigDict,
) -> tuple[Array, Array]:
    """Take images that fill the canvas as they are; arguments as `condition_inputs`."""
    del rng, severity, alpha, condition
    images, keypoints = place_on_canvas(
        None,
        batch["image"],
        batch["keypoints"],
        canvas_size=config.canvas.size,
        mode="center",
    )
    return finish(images, keypoints, config)


def finish(images: Array, keypoints: Array, config: ConfigDict) -> tuple[Array, Array]:
    """Keep the keypoints that the model has; draw them in for `absolute_drawn`."""
    keypoints = keypoints[:, : config.model.position_options.num_keypoints]
    if config.model.position == "absolute_drawn":
        images = draw_keypoints(images, keypoints, radius=DRAWN_RADIUS)
    return images, keypoints


def reads_keypoints(config: ConfigDict) -> bool:
    """Whether keypoints reach the network, as numbers or as part of the picture."""
    return config.model.position in (*KEYPOINT_FORMS, "absolute_drawn")


def make_vit(model: ConfigDict, mesh: Mesh | None = None) -> ViT:
    """Build the backbone from the config's section `model`: its very fields.

    With a mesh, its tokens stay spread over all devices by rows, as the batch is.
    """
    fields: dict[str, Any] = model.to_dict()
    if mesh is not None:
        fields["sharding"] = batch_sharding(mesh)
    fields["image_size"] = tuple(fields["image_size"])
    fields["dtype"] = jnp.dtype(fields["dtype"])
    return ViT(**fields)


def example_inputs(config: ConfigDict, mesh: Mesh) -> tuple[Array, Array]:
    """Zeros of the shapes that the backbone reads, a row per device, for `init`."""
    rows = mesh.size
    num_keypoints = config.model.position_options.num_keypoints
    return (
        jnp.zeros((rows, *config.model.image_size, 3)),
        jnp.zeros((rows, num_keypoints, 2)),
    )


def check_model(config: ConfigDict) -> None:
    """Check that the model reads what canvas and data give.

    Raises: ValueError: its images are not the canvas, or it wants more keypoints than
      the data has.
    """
    size = config.canvas.size
    if tuple(config.model.image_size) != (size, size):
        raise ValueError(
            f"config.model.image_size must be the canvas ({size}, {size}); got "
            f"{tuple(config.model.image_size)}; change it or config.canvas.size."
        )
    used, given = config.model.position_options.num_keypoints, config.data.num_keypoints
    if not 1 <= used <= given:
        raise ValueError(
            "config.model.position_options.num_keypoints must lie in 1 .. "
            f"config.data.num_keypoints = {given}; got {used}."
        )
