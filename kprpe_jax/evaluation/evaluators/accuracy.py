"""Type `accuracy`: of digits, distorted and with errors of their keypoints.

Source: KP-RPE, Fig. 1 (affine robustness) and Eq. 12 (perturbed keypoints).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from kprpe_jax.core.mesh import put_batch
from kprpe_jax.data.affnist import read_affnist
from kprpe_jax.data.loader import eval_batches
from kprpe_jax.evaluation.evaluators import Evaluator

KEYPOINTS = ("moved", "box", "swapped")
NOISES = ("uniform", "scale")


class Condition(NamedTuple):
    """How the test images are treated.

    Attributes:
      severity: of the affine distortion; 0 is translation only, 1 affNIST's ranges.
      alpha: of the keypoint error, Eq. 12.
      noise: of `perturb_keypoints`.
      keypoints: `moved` = transformed along with the image, `box` = the smallest
        upright box around the distorted foreground, as one finds it without knowing
        the transform, `swapped` = between the images of the batch, which shows how
        much a network relies on them.
      distorted: False for images that fill the canvas and are distorted already.
    """

    severity: float = 0.0
    alpha: float = 0.0
    noise: Literal["scale", "uniform"] = "uniform"
    keypoints: Literal["moved", "box", "swapped"] = "moved"
    distorted: bool = True


# (batch, rng, severity, alpha, *, condition) -> (images, keypoints)
Distort = Callable[..., tuple[Array, Array]]
# (params, collections, images, keypoints) -> scores float32 [B, num_classes]
Predict = Callable[[Any, Any, Array, Array], Array]


class DigitData:
    """What a run says of its data and its network to every evaluator of digits.

    Args:
      predict: the network.
      distort: makes its inputs.
      rows: of the test split.
      batch_size: rows of the global batch; the last one is padded and masked.
      uses_keypoints: whether the network reads keypoints.
    """

    def __init__(
        self,
        predict: Predict,
        distort: Distort,
        rows: Sequence,
        *,
        batch_size: int,
        uses_keypoints: bool,
    ):
        self.rows = rows
        self.batch_size = batch_size
        self.uses_keypoints = uses_keypoints

        @partial(jax.jit, static_argnames="condition")
        def count(params, collections, batch, rng, severity, alpha, *, condition):
            inputs = distort(batch, rng, severity, alpha, condition=condition)
            scores = predict(params, collections, *inputs)
            correct = (scores.argmax(-1) == batch["label"]) & batch["mask"]
            faulty = ~jnp.isfinite(scores).all(-1) & batch["mask"]
            return correct.sum(), batch["mask"].sum(), faulty.sum()

        self.count = count  # one compiled program for conditions of other numbers


def build(
    data: DigitData,
    *,
    severity: float = 0.0,
    keypoints: str = "moved",
    severities: tuple = (),
    alphas: tuple = (),
    repeats: int = 1,
) -> Evaluator | None:
    """Build the evaluator: top-1 accuracy.

    The distortion of a row depends on the repeat and the batch size alone, so every
    network and every mesh sees the same test set.

    Args:
      data: of the run.
      severity, keypoints: of `Condition`.
      severities: several in place of one.
      alphas: keypoint errors, each literally as Eq. 12 and as random noise.
      repeats: random distortions of each row.
    Returns: function (state, mesh) -> `accuracy` in [0, 1], or one by severity or by
      NOISE_ALPHA, and `count`, the rows without padding or repeats; it raises
      ValueError where scores are not finite. None for a network without keypoints
      where the evaluator is about them.
    Raises: ValueError: unknown keypoints; a batch of one row whose keypoints are to be
      swapped.
    """
    if keypoints not in KEYPOINTS:
        raise ValueError(
            f"keypoints must be one of {', '.join(KEYPOINTS)}; got {keypoints!r}."
        )
    if not data.uses_keypoints and (keypoints != "moved" or alphas):
        return None
    if keypoints == "swapped" and data.batch_size < 2:
        raise ValueError(
            "config.evals.batch_size must be at least 2, as keypoints are swapped "
            f"between the images of a batch; got {data.batch_size}."
        )
    conditions = {"accuracy": Condition(severity, keypoints=keypoints)}
    if alphas:
        conditions = {
            f"{noise}_{alpha:g}": Condition(severity, alpha, noise, keypoints)
            for noise in NOISES
            for alpha in alphas
        }
    elif severities:
        conditions = {f"{s:g}": Condition(s, keypoints=keypoints) for s in severities}
    return partial(_evaluate, data, data.rows, conditions, repeats)


def build_affnist(data: DigitData, *, file: str) -> Evaluator:
    """Build the evaluator of type `affnist`: accuracy on an official file.

    Its images are distorted already; their keypoints are those of the upright box.

    Args:
      data: of the run.
      file: a .mat file of affNIST.
    Raises: ValueError: as `read_affnist`.
    """
    conditions = {"accuracy": Condition(distorted=False)}
    return partial(_evaluate, data, read_affnist(file), conditions, 1)


def _evaluate(
    data: DigitData,
    rows: Sequence,
    conditions: dict[str, Condition],
    repeats: int,
    state: Any,
    mesh: Mesh,
) -> dict[str, float]:
    """Accuracy under each condition."""
    # Device batches are made once and read by every condition.
    batches = [
        put_batch(batch, mesh)
        for batch in eval_batches(
            rows,
            batch_size=data.batch_size,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
    ]
    sums = {
        name: [
            data.count(
                state.params,
                state.collections,
                batch,
                _key(repeat, index),
                jnp.float32(condition.severity),
                jnp.float32(condition.alpha),
                condition=condition._replace(severity=0.0, alpha=0.0),
            )
            for repeat in range(repeats)
            for index, batch in enumerate(batches)
        ]
        for name, condition in conditions.items()
    }
    results = {}
    for name, counts in jax.device_get(sums).items():
        correct, count, faulty = np.sum(counts, axis=0)
        if faulty:
            raise ValueError(
                f"evaluators: scores must be finite; got {faulty} of {count} rows "
                f"with NaN or infinity under {name!r}; find out which weights or "
                "images made them."
            )
        results[name] = float(correct / count)
    return {**results, "count": int(count) // repeats}


def _key(repeat: int, index: int) -> Array:
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(0), repeat), index)
