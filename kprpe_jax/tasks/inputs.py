"""From a batch on the devices to what a backbone reads: images and keypoints."""

import dataclasses
from typing import Any, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh
from ml_collections import ConfigDict

from kprpe_jax.backbones.vit import ViT
from kprpe_jax.core.mesh import batch_sharding
from kprpe_jax.data.canvas import distort_on_canvas, place_on_canvas
from kprpe_jax.data.keypoints import box_keypoints, draw_keypoints, perturb_keypoints
from kprpe_jax.evaluation.conditions import Condition
from kprpe_jax.position.encoding import KEYPOINT_FORMS

COMPUTE_TYPES = ("float32", "bfloat16", "float16")
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
    fields = network_fields(ViT, model)
    if mesh is not None:
        fields["sharding"] = batch_sharding(mesh)
    return ViT(**fields)


def network_fields(network: type[nn.Module], model: ConfigDict) -> dict[str, Any]:
    """The fields of a network from the config's section `model`.

    Args:
      network: class of a backbone; its fields and those of the section are the same,
        but for fields with a default value.
      model: the section.
    Returns: the fields; lists, as JSON gives them back, have become tuples.
    Raises: ValueError: a field that the network lacks, or that the section lacks; a
      type that nothing is computed in; a size below 1.
    """
    given: dict[str, Any] = model.to_dict()
    own = {f.name: f for f in dataclasses.fields(network)}
    needed = {name for name, f in own.items() if f.default is dataclasses.MISSING}
    other, missing = sorted(given.keys() - own), sorted(needed - given.keys())
    if other or missing:
        raise ValueError(
            f"config.model must have the fields of {network.__name__}; got others: "
            f"{', '.join(other) or '(none)'}; and without: "
            f"{', '.join(missing) or '(none)'}; take a config of this backbone."
        )
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    if "dtype" in fields:
        if fields["dtype"] not in COMPUTE_TYPES:
            raise ValueError(
                f"config.model.dtype must be one of {', '.join(COMPUTE_TYPES)}; got "
                f"{fields['dtype']!r}."
            )
        fields["dtype"] = jnp.dtype(fields["dtype"])
    for name, value in fields.items():
        kind = own[name].type
        sizes = value if isinstance(value, tuple) else (value,)
        if int in (kind, *get_args(kind)) and min(sizes, default=1) < 1:
            raise ValueError(f"config.model.{name} must be at least 1; got {value}.")
    return fields


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
