"""Learning-rate schedules, decay masks and the optimizers AdamW and SGD."""

import math
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from kprpe_jax.core.checks import check_field
from kprpe_jax.training.by_path import Factors, factor_of, freeze_labels
from kprpe_jax.training.sharding import path_of

Schedule = Callable[[Any], jax.Array]

# Parameters that are not decayed, by path: biases and scales; tables and projections
# that place tokens (learned positions, relative and keypoint biases), and the points of
# a learned template, for which zero is no neutral direction to pull to. By path and not
# by dimension only: layers under scan carry a leading axis, so their biases are
# matrices. (Class and mask tokens are vectors.)
NO_DECAY = (
    r"(^|/)(bias|qkv_bias|scale|logit_scale|position_embedding|template_keypoints)$"
    r"|(^|/)(bias_tables|offset_bias|keypoint_bias_\d+)/"
)

# What encodes position: bias tables of the attention, those of windows, too; learned
# embeddings of places.
POSITION = r"(^|/)(bias_tables/|keypoint_bias|offset_bias/table$|position_embedding$)"


class Optimizer(NamedTuple):
    """A gradient transformation, and its learning rate by step for the log."""

    transformation: optax.GradientTransformation
    schedule: Schedule


def make_schedule(
    config: ConfigDict, *, steps: int, steps_per_epoch: float | None = None
) -> Schedule:
    """Build the learning rate as a function of the step.

    With t = step, w = warm-up, T = steps, p = (t - w) / (T - w) clipped to [0, 1], base
    and end the two learning rates:
    - warm-up (t < w): base * (t + 1) / w, so that the first step already learns;
    - cosine: end + (base - end) * (1 + cos(pi p)) / 2;
    - sgdr: cosine that starts again at each of the boundaries, each period with its own
      p (Loshchilov and Hutter, SGDR, ICLR 2017, Eq. 5); without boundaries one period;
    - polynomial: end + (base - end) * (1 - p) ** power;
    - step: base * step_factor ** (number of boundaries <= t);
    - constant: base.

    Args:
      config: the section `optimizer`: learning_rate, end_learning_rate, schedule,
        schedule_unit ("steps" or "epochs": the unit of warmup and boundaries), warmup,
        power, boundaries (increasing), step_factor.
      steps: the number of steps of the whole run.
      steps_per_epoch: steps (a fraction is fine) that see each row once; needed for
        the unit "epochs".
    Returns: step -> float32 scalar.
    Raises: ValueError: an unknown schedule or unit, a warm-up as long as the run,
      boundaries that do not increase, or sgdr's outside of (warm-up, run).
    """
    if config.schedule_unit not in ("steps", "epochs"):
        raise ValueError(
            "optimizer.schedule_unit must be steps or epochs; "
            f"got {config.schedule_unit!r}"
        )
    unit = 1.0
    if config.schedule_unit == "epochs":
        if not steps_per_epoch:
            raise ValueError("optimizer.schedule_unit: epochs needs steps_per_epoch")
        unit = steps_per_epoch
    if not all(map(math.isfinite, (config.warmup, *config.boundaries))):
        raise ValueError(
            "optimizer.warmup and optimizer.boundaries must be finite; got "
            f"{config.warmup} and {tuple(config.boundaries)}"
        )
    warmup = round(config.warmup * unit)
    boundaries = [round(boundary * unit) for boundary in config.boundaries]
    if not 0 <= warmup < steps:
        raise ValueError(
            f"optimizer.warmup must lie in [0, steps); got {warmup} of {steps} steps"
        )
    if any(a >= b for a, b in zip(boundaries, boundaries[1:], strict=False)):
        raise ValueError(
            f"optimizer.boundaries must increase; got {tuple(config.boundaries)}"
        )
    within = all(warmup < boundary < steps for boundary in boundaries)
    if config.schedule == "sgdr" and not within:
        raise ValueError(
            "optimizer.boundaries of sgdr must lie after the warm-up and before the "
            f"end, between {warmup} and {steps} steps; got {tuple(boundaries)} steps"
        )
    base, end, power = config.learning_rate, config.end_learning_rate, config.power

    def progress(step):
        return jnp.clip((step - warmup) / (steps - warmup), 0.0, 1.0)

    def period_progress(step):
        edges = jnp.asarray([warmup, *boundaries, steps], jnp.float32)
        period = jnp.clip(jnp.sum(step >= edges) - 1, 0, len(edges) - 2)
        begin, finish = edges[period], edges[period + 1]
        return jnp.clip((step - begin) / jnp.maximum(finish - begin, 1), 0.0, 1.0)

    def cosine(share):
        return end + (base - end) * 0.5 * (1 + jnp.cos(jnp.pi * share))

    after = {
        "cosine": lambda t: cosine(progress(t)),
        "sgdr": lambda t: cosine(period_progress(t)),
        "polynomial": lambda t: end + (base - end) * (1 - progress(t)) ** power,
        "step": lambda t: (
            base
            * config.step_factor ** jnp.sum(t >= jnp.asarray(boundaries, jnp.float32))
        ),
        "constant": lambda t: jnp.full_like(t, base),
    }
    check_field("optimizer.schedule", config.schedule, after)

    def schedule(step):
        t = jnp.asarray(step, jnp.float32)
        rising = base * (t + 1) / max(warmup, 1)
        return jnp.where(t < warmup, rising, after[config.schedule](t))

    return schedule


def decay_mask(params: Any) -> Any:
    """Mark the parameters that weight decay acts on.

    Returns: a tree of bool like `params`; False where the path matches NO_DECAY or
      the parameter has fewer than two dimensions.
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf.ndim > 1 and not re.search(NO_DECAY, path_of(path)),
        params,
    )


def position_mask(params: Any) -> Any:
    """Mark what encodes position; returns a tree of bool like `params`."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: bool(re.search(POSITION, path_of(path))), params
    )


def make_optimizer(
    config: ConfigDict,
    *,
    steps: int,
    steps_per_epoch: float | None = None,
    freeze: Sequence[str] = (),
) -> Optimizer:
    """Build global-norm clipping followed by AdamW or SGD with momentum.

    AdamW's decay is decoupled from the moments; SGD's is added to the gradient before
    the momentum, as face recognition recipes do.

    Position tables and embeddings may learn faster than the rest: AdamW moves an entry
    by about a learning rate a step, and logits want biases of several units, which a
    short run never reaches (docs/decisions/003).

    Source: AdamW: Loshchilov and Hutter, ICLR 2019, Alg. 2 (the decay is scaled by the
      learning rate). Clipping: Pascanu et al., ICML 2013, Alg. 1.

    Args:
      config: the section `optimizer`: as `make_schedule`, and name ("adamw" or "sgd"),
        weight_decay, clip_norm (0 = no clipping), b1, b2 (adamw), momentum (sgd),
        position_factor (learning rate of position parameters over the others'),
        learning_rate_factors (pairs of a pattern and a factor, where they are there;
        the first that is found in a path counts, besides position_factor).
      steps: the number of steps of the whole run.
      steps_per_epoch: see `make_schedule`.
      freeze: patterns of `config.model.freeze`: parameters that are not updated, have
        no moments and do not enter the norm of clipping.
    Raises: ValueError: an unknown name; a learning rate, decay, clip norm or factor
      that is negative or not finite in float32, a moment's share outside of [0, 1), or
      as `make_schedule`.
    """
    for field in (
        "learning_rate",
        "end_learning_rate",
        "weight_decay",
        "clip_norm",
        "position_factor",
        "power",
        "step_factor",
    ):
        if not 0 <= config[field] <= float(np.finfo(np.float32).max):  # nor NaN
            raise ValueError(
                f"optimizer.{field} must be a finite number >= 0; got {config[field]}"
            )
    for field in ("b1", "b2", "momentum"):
        share = config[field]
        # Adam divides by 1 - share ** t, in float32.
        if not (0 <= share < 1 and np.float32(share) < 1):
            raise ValueError(f"optimizer.{field} must lie in [0, 1); got {share}")
    schedule = make_schedule(config, steps=steps, steps_per_epoch=steps_per_epoch)
    decay = optax.add_decayed_weights(config.weight_decay, mask=decay_mask)
    if config.name == "adamw":
        rule = (optax.scale_by_adam(b1=config.b1, b2=config.b2), decay)
    elif config.name == "sgd":
        rule = (decay, optax.trace(decay=config.momentum))
    else:
        raise ValueError(f"optimizer.name must be adamw or sgd; got {config.name!r}")
    clip = (optax.clip_by_global_norm(config.clip_norm),) if config.clip_norm else ()
    scale = (optax.scale_by_learning_rate(schedule),)
    if config.position_factor != 1:
        scale += (optax.masked(optax.scale(config.position_factor), position_mask),)
    if factors := tuple(config.get("learning_rate_factors", ())):
        scale += (_scale_by_path(factors),)
    chain = optax.chain(*clip, *rule, *scale)
    if freeze:
        chain = optax.multi_transform(
            {"trained": chain, "frozen": optax.set_to_zero()},
            partial(freeze_labels, freeze),
        )
    return Optimizer(chain, schedule)


def _scale_by_path(factors: Factors) -> optax.GradientTransformation:
    """Multiply updates by the factors of their paths."""

    def update(updates: Any, params: Any) -> Any:
        del params
        return jax.tree_util.tree_map_with_path(
            lambda path, x: x * factor_of(factors, path_of(path)), updates
        )

    return optax.stateless(update)
