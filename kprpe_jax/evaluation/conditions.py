"""Accuracy under conditions: distortion of the image, error of the keypoints.

Source: KP-RPE, Fig. 1 (affine robustness) and Eq. 12 (perturbed keypoints).
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from kprpe_jax.core.mesh import put_batch
from kprpe_jax.data.loader import eval_batches


class Condition(NamedTuple):
    """How the test images are treated.

    Attributes:
      severity: of the affine distortion; 0 is translation only, 1 affNIST's ranges.
      alpha: of the keypoint error, Eq. 12.
      noise: of `perturb_keypoints`.
      keypoints: `moved` = transformed along with the image, `box` = the smallest
        upright box around the distorted foreground, as one finds it without knowing
        the transform, `swapped` = those of the next image of the batch, which shows
        how much a network relies on them.
    """

    severity: float = 0.0
    alpha: float = 0.0
    noise: Literal["scale", "uniform"] = "uniform"
    keypoints: Literal["moved", "box", "swapped"] = "moved"


# (batch, rng, severity, alpha, *, condition) -> (images, keypoints)
Distort = Callable[..., tuple[Array, Array]]
# (params, collections, images, keypoints) -> scores float32 [B, num_classes]
Predict = Callable[[Any, Any, Array, Array], Array]


Evaluator = Callable[[Any, Mesh], dict[str, float]]


def merge_evaluators(named: Iterable[tuple[str, Evaluator]]) -> dict[str, Evaluator]:
    """Evaluators by name.

    Raises: ValueError: two have one name, so that one would displace the other unseen.
    """
    merged: dict[str, Evaluator] = {}
    for name, evaluator in named:
        if name in merged:
            raise ValueError(
                "config.evals: every evaluator must have a name of its own; got two "
                f"called {name!r}; leave one out, or import its data set under another "
                "name."
            )
        merged[name] = evaluator
    return merged


def check_swapping(
    conditions: dict[str, dict[str, Condition]], batch_size: int
) -> None:
    """Check that there is another row in a batch to take keypoints from.

    Raises: ValueError: a condition wants another's, and a batch is a single row.
    """
    for group in conditions.values():
        for name, condition in group.items():
            if condition.keypoints == "swapped" and batch_size < 2:
                raise ValueError(
                    f"config.evals.batch_size must be at least 2, as {name} takes the "
                    f"keypoints of another row of the batch; got {batch_size}."
                )


def make_evaluators(
    predict: Predict,
    distort: Distort,
    source: Sequence,
    conditions: dict[str, dict[str, Condition]],
    *,
    batch_size: int,
    repeats: int = 1,
    seed: int = 0,
) -> dict[str, Evaluator]:
    """Build evaluators: top-1 accuracy of every condition.

    The distortion of a row depends on the seed, the repeat and the batch size alone, so
    every network and every mesh sees the same test set. Conditions that differ only in
    their numbers share one compiled program.

    Args:
      predict: the network.
      distort: makes its inputs.
      source: rows of the test split.
      conditions: evaluator -> {name: condition}.
      batch_size: rows of the global batch; the last one is padded and masked.
      repeats: random draws of each row.
      seed: of the draws.
    Returns: evaluator -> function (state, mesh) -> {name: accuracy in [0, 1]}, which
      raises ValueError where scores are not finite; a single condition is called
      `accuracy`. `count` is the number of rows, without padding or repeats.
    Raises: ValueError: as `check_swapping`.
    """
    check_swapping(conditions, batch_size)

    @partial(jax.jit, static_argnames="condition")
    def count_correct(params, collections, batch, rng, severity, alpha, *, condition):
        images, keypoints = distort(batch, rng, severity, alpha, condition=condition)
        scores = predict(params, collections, images, keypoints)
        correct = (scores.argmax(-1) == batch["label"]) & batch["mask"]
        faulty = ~jnp.isfinite(scores).all(-1) & batch["mask"]
        return correct.sum(), batch["mask"].sum(), faulty.sum()

    def evaluate(
        group: dict[str, Condition], state: Any, mesh: Mesh
    ) -> dict[str, float]:
        # Device batches are made once and read by every condition.
        batches = [
            put_batch(batch, mesh)
            for batch in eval_batches(
                source,
                batch_size=batch_size,
                process_index=jax.process_index(),
                process_count=jax.process_count(),
            )
        ]
        sums = {}
        for name, condition in group.items():
            static = condition._replace(severity=0.0, alpha=0.0)
            sums[name] = [
                count_correct(
                    state.params,
                    state.collections,
                    batch,
                    _key(seed, repeat, index),
                    jnp.float32(condition.severity),
                    jnp.float32(condition.alpha),
                    condition=static,
                )
                for repeat in range(repeats)
                for index, batch in enumerate(batches)
            ]
        results = {}
        for name, pairs in jax.device_get(sums).items():
            correct, count, faulty = np.sum(pairs, axis=0)
            if faulty:
                raise ValueError(
                    f"evaluators: scores must be finite; got {faulty} of {count} rows "
                    f"with NaN or infinity under {name!r}; find out which weights or "
                    "images made them."
                )
            results[name] = float(correct / count)
        if len(group) == 1:
            results = {"accuracy": results.popitem()[1]}
        return {**results, "count": int(count) // repeats}

    return {name: partial(evaluate, group) for name, group in conditions.items()}


def _key(seed: int, repeat: int, index: int) -> Array:
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), repeat), index)


# Of `standard_conditions`, those that change nothing but the keypoints.
KEYPOINT_EVALUATORS = ("affine_box", "affine_swapped", "noise")


def standard_conditions(
    severities: Sequence[float], alphas: Sequence[float]
) -> dict[str, dict[str, Condition]]:
    """The evaluators of the digits study.

    Args:
      severities: of the sweep.
      alphas: keypoint errors; each literally as Eq. 12 and as random noise.
    Returns: evaluator -> {name: condition}: `clean`, `affine` (severity 1),
      `affine_box`, `affine_swapped`, `sweep` over severities, `noise` over keypoint
      errors at severity 1.
    """
    return {
        "clean": {"clean": Condition()},
        "affine": {"affine": Condition(severity=1.0)},
        "affine_box": {"affine_box": Condition(severity=1.0, keypoints="box")},
        "affine_swapped": {
            "affine_swapped": Condition(severity=1.0, keypoints="swapped")
        },
        "sweep": {f"{s:g}": Condition(severity=s) for s in severities},
        "noise": {
            f"{noise}_{alpha:g}": Condition(severity=1.0, alpha=alpha, noise=noise)
            for noise in ("uniform", "scale")
            for alpha in alphas
        },
    }
