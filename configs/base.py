"""Fields that many runs have, with usual values; a config adds its own beside them."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from kprpe_jax.backbones.vit import PRESETS
from kprpe_jax.evaluation import evaluators
from kprpe_jax.position.encoding import POSITIONS


def check_argument(argument: str, choices: Collection[str]) -> None:
    """Check the argument of a `get_config`, PATH.py:ARGUMENT.

    Raises: ValueError: none of the choices.
    """
    if argument not in choices:
        raise ValueError(
            f"config: the argument after the colon must be one of {', '.join(choices)};"
            f" got {argument!r}"
        )


def make_base(task: str, *, steps: int) -> ConfigDict:
    """Loader, optimizer, mesh, checkpoints and log of a task in `kprpe_jax.tasks`.

    Args:
      task: name of its file.
      steps: of the optimizer; not to be mixed up with epochs.
    """
    config = ConfigDict()
    config.task = task
    config.seed = 0
    config.steps = steps

    config.data = ConfigDict()
    config.data.dir = "data"  # of all data sets
    config.data.train_split = "train"
    config.data.num_threads = 2  # that read
    config.data.num_workers = 0  # reading processes; 0 = this one

    config.optimizer = ConfigDict()
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.end_learning_rate = 0.0
    config.optimizer.schedule = "cosine"
    config.optimizer.schedule_unit = "steps"
    config.optimizer.warmup = 0.0
    config.optimizer.power = 1.0
    config.optimizer.boundaries = ()
    config.optimizer.step_factor = 0.1
    config.optimizer.weight_decay = 0.05
    config.optimizer.b1 = 0.9
    config.optimizer.b2 = 0.999
    config.optimizer.momentum = 0.9
    config.optimizer.clip_norm = 0.0
    config.optimizer.position_factor = 1.0
    config.optimizer.accumulate_steps = 1

    config.mesh = ConfigDict()
    config.mesh.data = -1
    config.mesh.fsdp = 1
    config.mesh["class"] = 1

    config.checkpoint = ConfigDict()
    config.checkpoint.every_steps = 400
    config.checkpoint.keep_last = 2
    config.checkpoint.best_metric = ""
    config.checkpoint.best_mode = "max"

    config.log = ConfigDict()
    config.log.every_steps = 50
    config.log.watchdog_minutes = 0.0  # without a step: stacks, then exit 1; 0 = never
    return config


def vit_fields(position: str) -> ConfigDict:
    """Fields of `backbones.vit.ViT`, of its smallest size.

    Args:
      position: one of the encodings of `kprpe_jax.position.encoding`.
    Raises: ValueError: none of them.
    """
    check_argument(position, POSITIONS)
    model = ConfigDict(PRESETS["tiny"])
    model.position = position
    model.absolute = True
    model.position_options = ConfigDict()
    model.position_options.num_keypoints = 5
    model.position_options.method = "product"
    model.position_options.ratio = 1.9
    model.position_options.per_layer = True
    model.position_options.per_head = True
    model.position_options.context = "k"
    model.position_options.factorized = True
    model.position_options.hidden_dim = 0
    model.position_options.stop_keypoint_gradient = False
    # As in the official code: with AdamW the paper's division by sqrt(head_dim) only
    # slows the bias down (docs/decisions/002).
    model.position_options.scale_bias = False
    # As published, tables start at zero; > 0: decision 004.
    model.position_options.anchor_width = 0.0
    model.position_options.anchor_template = ()
    model.pool = "flatten"
    model.activation = "relu6"
    model.mask_ratio = 0.0
    model.scan = False  # four layers compile faster unrolled
    model.remat = False
    model.attention = "xla"  # or "pallas": docs/performance.md
    model.dtype = "float32"
    return model


def margin_loss_fields() -> ConfigDict:
    """Fields of the margin softmax, see `kprpe_jax.losses`."""
    loss = ConfigDict()
    loss.margin_kind = "cosface"  # or arcface, adaface, curricularface, cosine
    loss.margin = 0.35
    loss.scale = 30.0
    loss.margin_gradient = "exact"
    loss.sample_rate = 1.0  # of the class centers, each step
    loss.concentration = 0.333  # adaface
    loss.norm_momentum = 0.01  # adaface
    return loss


def verification_evaluators(
    severities: Sequence[float] = (), alphas: Sequence[float] = (), **fields: Any
) -> dict[str, dict[str, Any]]:
    """Evaluators of faces: aligned, misaligned, and with wrong keypoints.

    Args:
      severities: of `misaligned_S`.
      alphas: keypoint errors of `aligned_noise` (KP-RPE, Fig. 6) and, on misaligned
        faces, `noise`; () = neither.
      fields: further ones of `evaluators.verification`, such as identities and pairs.
    Returns: entries of `config.evals`.
    """
    fields = {"type": "verification", **fields}
    entries = {"aligned": fields}
    for severity in severities:
        entries[numbered("misaligned", severity)] = {**fields, "severity": severity}
    swapped = {**fields, "severity": 1.0, "keypoints": "swapped"}
    entries["swapped"] = swapped
    if alphas:
        noise = {**fields, "alphas": tuple(alphas)}
        entries["aligned_noise"] = noise
        entries["noise"] = {**noise, "severity": 1.0}
    return entries


def numbered(name: str, number: float) -> str:
    """NAME_0_5 for 0.5: names of fields have no dots."""
    return f"{name}_{number:g}".replace(".", "_")


def set_evaluators(config: ConfigDict, entries: Mapping[str, Mapping]) -> None:
    """Replace the named evaluators of a config by others."""
    for name in evaluators.entries(config.evals):
        del config.evals[name]
    for name, fields in entries.items():
        config.evals[name] = ConfigDict(fields)


def change_evaluators(config: ConfigDict, **fields: Any) -> None:
    """Set fields of all named evaluators."""
    for entry in evaluators.entries(config.evals).values():
        entry.update(fields)
